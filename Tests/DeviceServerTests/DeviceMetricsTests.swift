import Platform
import Testing

@testable import DeviceServer

/// What collectors of figures read.
@Suite struct DeviceMetricsTests {
    @Test func samplesOfANameStandTogether() {
        var text = PrometheusText()
        text.add("a_total", .counter, "Of a.", [("device", "x")], 1)
        text.add("b", .gauge, "Of b.", [("device", "x"), ("image", "C:\\a\"b\nc")], 2)
        text.add("a_total", .counter, "Of a.", [("device", "y")], .max)
        #expect(
            text.text == """
                # HELP a_total Of a.
                # TYPE a_total counter
                a_total{device="x"} 1
                a_total{device="y"} 18446744073709551615
                # HELP b Of b.
                # TYPE b gauge
                b{device="x",image="C:\\\\a\\"b\\nc"} 2

                """)
    }

    @Test("what is not told is left out, and not 0")
    func deviceWithoutAServer() {
        var text = PrometheusText()
        let device = KnownDevice(
            record: DeviceRecord(
                deviceID: 3, server: ProcessIdentity(id: .max, startTicks: 1), imagePath: "/a.qed",
                image: FileIdentity(high: 1, low: 2), deviceNonce: 1, isReadOnly: false, startedAt: 0))
        DeviceMetrics.add(device, nil, to: &text)
        let lines = text.text.split(separator: "\n").filter { !$0.hasPrefix("#") }
        #expect(lines.contains(#"qed_ublk_device_up{device="ublkb3"} 0"#))
        #expect(lines.count == 2, "\(lines)")
        DeviceMetrics.add(
            device,
            [
                "requests": ["reads": 7, "read-bytes": 4096, "largest-under-way": 3], "storage-operations": ["fsyncs": 2],
                "cache": ["hits": 6, "misses": 1, "l2-pages": 5, "chain-loads": 4],
                "latency-microseconds": ["read": ["requests": 1, "p50": 12, "p100": .null]],
                "commit-microseconds": ["sync": ["count": 2, "total": 900, "p99": 600]],
            ], to: &text)
        #expect(text.text.contains("\nqed_ublk_requests_total{device=\"ublkb3\",kind=\"read\"} 7\n"))
        #expect(text.text.contains("\nqed_ublk_request_bytes_total{device=\"ublkb3\",kind=\"read\"} 4096\n"))
        #expect(text.text.contains("\nqed_ublk_storage_operations_total{device=\"ublkb3\",operation=\"fsyncs\"} 2\n"))
        #expect(
            text.text.contains("\nqed_ublk_request_latency_microseconds{device=\"ublkb3\",kind=\"read\",quantile=\"0.5\"} 12\n"))
        #expect(!text.text.contains("quantile=\"1\""))
        for sample in [
            #"largest_requests_under_way{device="ublkb3"} 3"#, #"cache_requests_total{device="ublkb3",result="hit"} 6"#,
            #"cache_requests_total{device="ublkb3",result="miss"} 1"#, #"cache_pages{device="ublkb3",pages="l2"} 5"#,
            #"cache_loads_total{device="ublkb3",pages="chain"} 4"#,
            #"commit_latency_microseconds{device="ublkb3",kind="sync",quantile="0.99"} 600"#,
            #"commit_microseconds_total{device="ublkb3",kind="sync"} 900"#,
        ] { #expect(text.text.contains("\nqed_ublk_\(sample)\n"), "\(sample)") }
        #expect(!text.text.contains("cache_evictions") && !text.text.contains("base"))
    }

    @Test("a base elsewhere, there and away")
    func base() {
        let device = KnownDevice(
            record: DeviceRecord(
                deviceID: 3, server: ProcessIdentity(id: .max, startTicks: 1), imagePath: "/a.qed",
                image: FileIdentity(high: 1, low: 2), deviceNonce: 1, isReadOnly: false, startedAt: 0))
        func samples(_ figures: JSONValue) -> [Substring] {
            var text = PrometheusText()
            DeviceMetrics.add(device, figures, to: &text)
            return text.text.split(separator: "\n").filter { $0.hasPrefix("qed_ublk_base") }
        }
        #expect(samples(["base-state": .null]) == [])
        #expect(samples(["base-state": "there", "base-away-since": .null]) == [#"qed_ublk_base_up{device="ublkb3"} 1"#])
        for state: JSONValue in ["away", "changed"] {
            #expect(
                samples(["base-state": state, "base-away-since": 1_700_000_000]) == [
                    #"qed_ublk_base_up{device="ublkb3"} 0"#,
                    #"qed_ublk_base_away_since_seconds{device="ublkb3"} 1700000000"#,
                ])
        }
    }
}
