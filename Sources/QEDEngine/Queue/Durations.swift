/// How long something took, each time: how often, together, at most, and as percentiles, which are told within an eighth of
/// themselves. In nanoseconds. Counted by one thread.
///
/// By hand: what it is for takes a clock and an array, and the engine needs no library for that.
public struct Durations: Equatable, Sendable {
    public private(set) var count: UInt64 = 0
    public private(set) var totalNanoseconds: UInt64 = 0
    public private(set) var longestNanoseconds: UInt64 = 0

    /// How many there were up to `upperBound(ofBucket:)` of the place, and not of the one before. Empty before the first, because
    /// it takes 2 kilobytes.
    private var buckets: [UInt64] = []

    /// Below so much nothing is told apart: 2^10 ns.
    private static let shortestShift = 10
    /// Each power of two has so many buckets, as a power of two.
    private static let partShift = 3
    /// The first is for what is shorter, the last for what takes 2^37 ns, two minutes, or more.
    private static let bucketCount = 2 + (37 - shortestShift) << partShift

    public init() {}

    public mutating func record(nanoseconds: UInt64) {
        if buckets.isEmpty { buckets = Array(repeating: 0, count: Durations.bucketCount) }
        buckets[Durations.bucket(of: nanoseconds)] &+= 1
        count &+= 1
        totalNanoseconds &+= nanoseconds
        longestNanoseconds = max(longestNanoseconds, nanoseconds)
    }

    /// Adds those of another queue.
    public mutating func add(_ other: Durations) {
        count &+= other.count
        totalNanoseconds &+= other.totalNanoseconds
        longestNanoseconds = max(longestNanoseconds, other.longestNanoseconds)
        if buckets.isEmpty {
            buckets = other.buckets
        } else {
            for (index, more) in other.buckets.enumerated() { buckets[index] &+= more }
        }
    }

    /// nil where there were none.
    public var meanNanoseconds: UInt64? { count == 0 ? nil : totalNanoseconds / count }

    /// What so many of a hundred did not exceed; nil where there were none.
    public func nanoseconds(atPercentile percentile: Double) -> UInt64? {
        precondition(percentile >= 0 && percentile <= 100, "a part of more than there is")
        guard count > 0 else { return nil }
        let wanted = max(UInt64((Double(count) * percentile / 100).rounded(.up)), 1)
        var seen: UInt64 = 0
        for (index, more) in buckets.enumerated() {
            seen &+= more
            // The longest is known as it was.
            if seen >= wanted { return min(Durations.upperBound(ofBucket: index), longestNanoseconds) }
        }
        return longestNanoseconds
    }

    private static func bucket(of nanoseconds: UInt64) -> Int {
        let exponent = UInt64.bitWidth - 1 - nanoseconds.leadingZeroBitCount
        guard exponent >= shortestShift else { return 0 }
        let part = Int(nanoseconds >> UInt64(exponent - partShift)) & (1 << partShift - 1)
        return min(1 + (exponent - shortestShift) << partShift + part, bucketCount - 1)
    }

    private static func upperBound(ofBucket index: Int) -> UInt64 {
        if index == bucketCount - 1 { return .max }
        // Where the next bucket begins.
        let exponent = shortestShift + index >> partShift
        let part = index & (1 << partShift - 1)
        return UInt64(1 << partShift + part) << UInt64(exponent - partShift) - 1
    }
}
