import Testing

@testable import Ublk

@Suite struct RequestLatenciesTests {
    @Test func percentilesOfSeveralQueues() throws {
        var first = RequestLatencies()
        var second = RequestLatencies()
        for microseconds in 1...99 as ClosedRange<UInt64> { first.record(.read, nanoseconds: microseconds * 100_000) }
        second.record(.read, nanoseconds: 3_000_000_000)
        second.record(.flush, nanoseconds: 1)
        first.add(second)
        #expect(first.count(.read) == 100 && first.count(.write) == 0 && first.count(.flush) == 1)
        let median = try #require(first.nanoseconds(.read, atPercentile: 50))
        #expect((4_900_000...5_100_000).contains(median), "\(median)")
        let longest = try #require(first.nanoseconds(.read, atPercentile: 100))
        #expect((2_970_000_000...3_030_000_000).contains(longest), "\(longest)")
        #expect(first.nanoseconds(.write, atPercentile: 50) == nil)
    }

    @Test("a request that took for ever counts as the longest")
    func forEver() throws {
        var latencies = RequestLatencies()
        latencies.record(.write, nanoseconds: .max)
        let longest = try #require(latencies.nanoseconds(.write, atPercentile: 100))
        #expect((59_000_000_000...61_000_000_000).contains(longest), "\(longest)")
    }
}
