import Histogram

/// How long requests took, from their arrival at the queue to their answer, in nanoseconds: of some requests, as they come.
public struct RequestLatencies: Sendable, Equatable {
    public enum Kind: Int, CaseIterable, Sendable {
        case read, write, flush
    }

    /// Of each kind; nil before its first request, because each takes 20 kilobytes. Counts have 64 bits: 32 would be full after
    /// hours.
    private var histograms: [Histogram<UInt64>?] = Kind.allCases.map { _ in nil }

    /// Longer ones count as this.
    private static let longestNanoseconds: UInt64 = 60_000_000_000
    /// Two digits say as much as anybody wants to know of a percentile, and a third would take ten times the memory.
    private static let digits = SignificantDigits.two
    /// Below a microsecond nothing is told apart.
    private static let shortestNanoseconds: UInt64 = 512

    public init() {}

    mutating func record(_ kind: Kind, nanoseconds: UInt64) {
        let value = min(nanoseconds, RequestLatencies.longestNanoseconds)
        if histograms[kind.rawValue] == nil {
            histograms[kind.rawValue] = Histogram(
                lowestDiscernibleValue: RequestLatencies.shortestNanoseconds,
                highestTrackableValue: RequestLatencies.longestNanoseconds,
                numberOfSignificantValueDigits: RequestLatencies.digits)
        }
        let isTaken = histograms[kind.rawValue]?.record(value) ?? false
        precondition(isTaken, "a latency beyond the longest")
    }

    /// Adds those of another queue.
    public mutating func add(_ other: RequestLatencies) {
        for kind in Kind.allCases {
            guard let added = other.histograms[kind.rawValue] else { continue }
            if histograms[kind.rawValue] == nil {
                histograms[kind.rawValue] = added
            } else {
                histograms[kind.rawValue]?.add(added)
            }
        }
    }

    /// How many requests there were of the kind.
    public func count(_ kind: Kind) -> UInt64 { histograms[kind.rawValue]?.totalCount ?? 0 }

    /// What so many of a hundred requests did not exceed; nil where there were none.
    public func nanoseconds(_ kind: Kind, atPercentile percentile: Double) -> UInt64? {
        guard let histogram = histograms[kind.rawValue], histogram.totalCount > 0 else { return nil }
        return percentile >= 100 ? histogram.max : histogram.valueAtPercentile(percentile)
    }
}
