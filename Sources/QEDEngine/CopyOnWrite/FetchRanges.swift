/// Ranges of the disk of which the image is to get what it does not have yet, in their order, and how far that is.
public struct FetchRanges: Equatable, Sendable {
    private let ranges: [Range<UInt64>]
    /// Of the range that is the next, and the place in it from which on nothing was given out.
    private var index = 0
    private var position: UInt64
    private var bytesOfPassedRanges: UInt64 = 0
    /// Of all ranges, each counted for itself.
    public let totalBytes: UInt64

    /// - Parameter ranges: device offsets; empty ones are left out. Together less than 2^64 bytes.
    public init(_ ranges: [Range<UInt64>]) {
        self.ranges = ranges.filter { !$0.isEmpty }
        position = self.ranges.first?.lowerBound ?? 0
        totalBytes = self.ranges.reduce(0) { $0 + UInt64($1.count) }
    }

    public var isAtEnd: Bool { index == ranges.count }

    /// How many bytes were given out, or skipped.
    public var passedBytes: UInt64 {
        guard !isAtEnd else { return totalBytes }
        return bytesOfPassedRanges + (min(position, ranges[index].upperBound) - ranges[index].lowerBound)
    }

    /// Gives out the next part: whole clusters, the last one perhaps without what lies behind `limit`.
    /// - Parameters:
    ///   - unitBytes: the part ends where a multiple of this does, at the latest: a power of two, at least a cluster.
    ///   - limit: nothing behind it is given out.
    mutating func next(clusterBytes: UInt64, unitBytes: UInt64, limit: UInt64) -> Range<UInt64>? {
        precondition(unitBytes >= clusterBytes && unitBytes & (unitBytes - 1) == 0, "parts of clusters")
        while !isAtEnd {
            let start = position & ~(clusterBytes - 1)
            let rangeEnd = ranges[index].upperBound
            guard start < limit else {
                passRange()
                continue
            }
            let clustersEnd = ((rangeEnd - 1) | (clusterBytes - 1)) &+ 1
            let end = min((start | (unitBytes - 1)) &+ 1, clustersEnd, limit)
            position = end
            if end >= rangeEnd || end == limit { passRange() }
            return start..<end
        }
        return nil
    }

    /// Nothing is to be fetched from there: what was not given out of it yet is left out, whoever has found that.
    mutating func skip(_ zeros: Range<UInt64>) {
        guard !isAtEnd, zeros.contains(position) else { return }
        position = zeros.upperBound
        if position >= ranges[index].upperBound { passRange() }
    }

    private mutating func passRange() {
        bytesOfPassedRanges += UInt64(ranges[index].count)
        index += 1
        if !isAtEnd { position = ranges[index].lowerBound }
    }
}
