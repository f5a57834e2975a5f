import IOURing

/// The smallest target: a disk that takes everything and keeps nothing. A read gives what is in the tag's memory.
///
/// What a device with it can do is what the transport can: whatever another target does comes on top.
public final class NullTarget: BlockTarget {
    private var finished: [Int] = []

    public init() {}

    /// Finished at once; `nextFinished` says so.
    public func start(tag: Int, _ request: RequestDescriptor, _ data: RequestData) {
        finished.append(tag)
    }

    public func nextFinished() -> (tag: Int, result: Int32)? { finished.popLast().map { ($0, 0) } }

    // It has no I/O of its own, nothing to do now and then, and nothing to let go of.
    public func completed(_ token: CompletionToken, _ result: Int32) { preconditionFailure("not an operation of this target") }
    public func endOfBatch() {}
    public let needsTick = false
    public func tick(nowMilliseconds: UInt64) {}
    public let isQuiet = true
    public func stop() {}
    public let isStopped = true
}
