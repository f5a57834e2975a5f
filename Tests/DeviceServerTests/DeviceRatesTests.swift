import Platform
import Testing

@testable import DeviceServer

@Suite struct DeviceRatesTests {
    private func sample(_ reads: UInt64, server: Int32 = 7, seconds: UInt64) -> DeviceSample {
        DeviceSample(
            device: "ublkb0", state: "live", image: "/a.qed", server: server,
            figures: [
                "requests": ["reads": JSONValue(reads), "read-bytes": JSONValue(reads << 12), "under-way": 3],
                "storage-operations": ["fsyncs": JSONValue(reads / 10)],
            ], nanoseconds: seconds * 1_000_000_000)
    }

    @Test func whatHappensInASecond() throws {
        let rates = try #require(DeviceRates(from: sample(100, seconds: 10), to: sample(300, seconds: 14)))
        #expect(rates.reads == 50 && rates.readBytes == 50 * 4096 && rates.syncs == 5 && rates.writes == 0)
        #expect(rates.underWay == 3)
        #expect((rates + rates).reads == 100 && (rates + rates).underWay == 6)
    }

    @Test("nothing is made up of what another server has counted, or none")
    func otherServers() {
        #expect(DeviceRates(from: nil, to: sample(1, seconds: 1)) == nil)
        #expect(DeviceRates(from: sample(500, server: 6, seconds: 1), to: sample(1, seconds: 2)) == nil)
        var silent = sample(1, seconds: 2)
        silent.figures = nil
        #expect(DeviceRates(from: sample(1, seconds: 1), to: silent) == nil)
        #expect(DeviceRates(from: silent, to: sample(1, seconds: 3)) == nil)
    }
}
