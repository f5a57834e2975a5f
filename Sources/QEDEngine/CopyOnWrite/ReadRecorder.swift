import Platform

/// A range that was read, and when: milliseconds since whoever records began.
public struct RecordedRead: Equatable, Sendable {
    public var milliseconds: UInt64
    /// Bytes of the disk.
    public var range: Range<UInt64>

    public init(milliseconds: UInt64, range: Range<UInt64>) {
        self.milliseconds = milliseconds
        self.range = range
    }
}

/// Which ranges were read, each byte once, in the order in which they were first read. What goes on where a recent one ends, or
/// ends where one begins, becomes one with it.
public struct RecordedReads: Sendable {
    /// No recording has more ranges: what is read after that many is left out.
    public static let limit = 65_536
    /// So many of the last are looked at for a neighbour: as many streams may be read side by side.
    private static let recentCount = 16

    /// What nobody has taken yet.
    private var recent: [RecordedRead] = []
    private var takenCount = 0
    /// All of it, in order, without neighbours that touch.
    private var covered: [Range<UInt64>] = []

    public init() {}

    public var isFull: Bool { takenCount + recent.count >= Self.limit }

    public mutating func note(_ range: Range<UInt64>, milliseconds: UInt64) {
        guard !range.isEmpty, !isFull else { return }
        let (first, last) = touching(range)
        var position = range.lowerBound
        for known in covered[first..<last] {
            if position < known.lowerBound { append(position..<known.lowerBound, milliseconds) }
            position = max(position, known.upperBound)
        }
        if position < range.upperBound { append(position..<range.upperBound, milliseconds) }
        var merged = range
        if first < last {
            merged = min(range.lowerBound, covered[first].lowerBound)..<max(range.upperBound, covered[last - 1].upperBound)
        }
        covered.replaceSubrange(first..<last, with: CollectionOfOne(merged))
    }

    /// What was recorded since this was last asked.
    public mutating func take() -> [RecordedRead] {
        defer {
            takenCount += recent.count
            recent = []
        }
        return recent
    }

    private mutating func append(_ range: Range<UInt64>, _ milliseconds: UInt64) {
        for index in recent.indices.suffix(Self.recentCount).reversed() {
            if recent[index].range.upperBound == range.lowerBound {
                recent[index].range = recent[index].range.lowerBound..<range.upperBound
                return
            }
            if recent[index].range.lowerBound == range.upperBound {
                recent[index].range = range.lowerBound..<recent[index].range.upperBound
                return
            }
        }
        recent.append(RecordedRead(milliseconds: milliseconds, range: range))
    }

    /// The places in `covered` of what overlaps the range, or touches it.
    private func touching(_ range: Range<UInt64>) -> (Int, Int) {
        let first = firstIndex { $0.upperBound >= range.lowerBound }
        let last = firstIndex { $0.lowerBound > range.upperBound }
        return (first, last)
    }

    /// The first for which it is true: in front of it it is false, and behind it true.
    private func firstIndex(where isBehind: (Range<UInt64>) -> Bool) -> Int {
        var (low, high) = (0, covered.count)
        while low < high {
            let middle = (low + high) / 2
            if isBehind(covered[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}

/// Is told by all queues what they read from the bottom of the chain for the disk's users: for their reads, and around what they
/// write of a part of a cluster. Any thread.
public final class ReadRecorder: Sendable {
    private let reads = Lock(RecordedReads())
    private let milliseconds: @Sendable () -> UInt64

    /// - Parameter milliseconds: a clock that does not go back.
    public init(milliseconds: @escaping @Sendable () -> UInt64) { self.milliseconds = milliseconds }

    func note(_ range: Range<UInt64>) {
        let now = milliseconds()
        reads.withLock { $0.note(range, milliseconds: now) }
    }

    /// What was recorded since this was last asked.
    public func take() -> [RecordedRead] { reads.withLock { $0.take() } }
}
