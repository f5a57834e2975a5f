/// What a queue was asked for since its loop began, and what came of it. Counted by the queue's thread.
public struct QueueStatistics: Equatable, Sendable {
    /// Requests that the target was given.
    public var reads: UInt64 = 0
    public var readBytes: UInt64 = 0
    public var writes: UInt64 = 0
    public var writtenBytes: UInt64 = 0
    public var flushes: UInt64 = 0
    /// DISCARD and WRITE ZEROES.
    public var discards: UInt64 = 0
    public var zeroings: UInt64 = 0
    /// Of all of them, those that were answered with an error.
    public var failures: UInt64 = 0
    /// Requests that the target has at this moment.
    public var underWay: UInt64 = 0
    /// The most that it had when a request of a turn came whose latencies are looked at, or when somebody asked.
    public var largestUnderWay: UInt64 = 0
    /// How often the thread has handled what had completed, and entered the kernel for more.
    public var turns: UInt64 = 0

    /// Of the requests that came in one turn of `QueueLoop.turnsForASample`.
    public var latencies = RequestLatencies()

    public init() {}

    /// What can be added up over queues, with names for output.
    public var counters: [(name: String, value: UInt64)] {
        [
            ("reads", reads), ("read-bytes", readBytes), ("writes", writes), ("written-bytes", writtenBytes),
            ("flushes", flushes), ("discards", discards), ("zeroings", zeroings), ("failures", failures),
            ("under-way", underWay), ("turns", turns),
        ]
    }

    /// A request is given to the target.
    @inline(__always)
    mutating func count(_ request: RequestDescriptor) {
        switch request.operation {
        case .read:
            reads &+= 1
            readBytes &+= UInt64(request.sizeBytes)
        case .write:
            writes &+= 1
            writtenBytes &+= UInt64(request.sizeBytes)
        case .flush: flushes &+= 1
        case .discard: discards &+= 1
        case .writeZeroes: zeroings &+= 1
        case .other: break
        }
    }
}
