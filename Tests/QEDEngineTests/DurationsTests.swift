import Testing

@testable import QEDEngine

@Suite struct DurationsTests {
    @Test func whatIsTold() {
        var times = Durations()
        #expect(times.count == 0 && times.meanNanoseconds == nil && times.nanoseconds(atPercentile: 50) == nil)
        for nanoseconds in [70_000_000, 1, 5000] as [UInt64] { times.record(nanoseconds: nanoseconds) }
        #expect(times.count == 3 && times.totalNanoseconds == 70_005_001 && times.meanNanoseconds == 23_335_000)
        #expect(times.nanoseconds(atPercentile: 0) == 1023)
        // What shares a bucket with 5000 goes up to 5119.
        #expect(times.nanoseconds(atPercentile: 50) == 5119)
        #expect(times.nanoseconds(atPercentile: 99) == 70_000_000 && times.longestNanoseconds == 70_000_000)
    }

    @Test("a percentile is never too short, and too long by an eighth at most")
    func precision() {
        for shift in 10..<37 as Range<UInt64> {
            for value in [1 << shift, 1 << shift + 1, 3 << (shift - 1) - 1, 2 << shift - 1] as [UInt64] {
                var times = Durations()
                times.record(nanoseconds: value)
                times.record(nanoseconds: .max / 2)
                let told = times.nanoseconds(atPercentile: 50) ?? 0
                #expect(value <= told && told - value <= value / 8, "\(value): \(told)")
            }
        }
    }

    @Test("what took for ever is told as it was")
    func forEver() {
        var times = Durations()
        times.record(nanoseconds: .max)
        #expect(times.nanoseconds(atPercentile: 50) == .max)
    }

    @Test func severalQueues() {
        var first = Durations()
        var second = Durations()
        for number in 1...99 as ClosedRange<UInt64> { first.record(nanoseconds: number << 10) }
        second.record(nanoseconds: 1 << 30)
        first.add(Durations())
        second.add(first)
        #expect(second.count == 100 && second.longestNanoseconds == 1 << 30)
        #expect(second.totalNanoseconds == (99 * 50) << 10 + 1 << 30)
        let median = second.nanoseconds(atPercentile: 50) ?? 0
        #expect((50 << 10...57 << 10).contains(median), "\(median)")
        var none = Durations()
        none.add(second)
        #expect(none == second)
    }
}
