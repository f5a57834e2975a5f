import Platform
import Ublk

/// `metrics`: what all devices are, and what their servers have counted, for programs that collect such figures.
package enum DeviceMetrics {
    /// Asks each server. One that does not answer is a device that is not up, and keeps nothing of the others back.
    package static func text(registry: DeviceRegistry = DeviceRegistry()) throws -> String {
        var text = PrometheusText()
        for device in try KnownDevices.all(registry: registry) {
            add(device, DeviceFigures.ofServer(of: device, registry), to: &text)
        }
        return text.text
    }

    /// - Parameter figures: nil: its server does not tell them.
    static func add(_ device: KnownDevice, _ figures: JSONValue?, to text: inout PrometheusText) {
        let label = [(name: "device", value: "ublkb\(device.id)")]
        text.add(
            "qed_ublk_device_info", .gauge, "A device, its image and its state, as 'qed-ublk list' names it.",
            label + [("image", device.record?.imagePath ?? ""), ("state", device.state)], 1)
        text.add(
            "qed_ublk_device_up", .gauge, "Whether the device has a server that answers.", label, figures == nil ? 0 : 1)
        if let size = device.sizeBytes { text.add("qed_ublk_device_size_bytes", .gauge, "Size of the disk.", label, size) }
        if let memory = device.memory {
            text.add(
                "qed_ublk_server_resident_bytes", .gauge, "What the device's server has in memory.", label,
                memory.residentBytes)
        }
        guard let figures else { return }
        addBase(figures, label, to: &text)
        addRequests(figures, label, to: &text)
        addPercentiles(
            figures["latency-microseconds"], "qed_ublk_request_latency_microseconds",
            "What so much of the requests did not exceed since the server began, of one turn in eight.", label, to: &text)
        addCommits(figures["commit-microseconds"], label, to: &text)
        addCache(figures["cache"], label, to: &text)
        guard case .object(let operations)? = figures["storage-operations"] else { return }
        for operation in operations {
            text.add(
                "qed_ublk_storage_operations_total", .counter,
                "What became of the requests in the image's files, as 'qed-ublk stats' names it.",
                label + [("operation", operation.name)], operation.value.integer() ?? 0)
        }
    }

    /// Of a device over a base elsewhere.
    private static func addBase(_ figures: JSONValue, _ label: [(name: String, value: String)], to text: inout PrometheusText) {
        guard let state = figures["base-state"]?.text else { return }
        text.add(
            "qed_ublk_base_up", .gauge, "Whether the base elsewhere was there when it was last looked at.", label,
            state == "there" ? 1 : 0)
        guard let since = figures["base-away-since"]?.integer(as: UInt64.self) else { return }
        text.add(
            "qed_ublk_base_away_since_seconds", .gauge, "Since when the base elsewhere is away, in seconds since 1970.", label,
            since)
    }

    private static func addPercentiles(
        _ figures: JSONValue?, _ name: String, _ help: String, _ label: [(name: String, value: String)],
        to text: inout PrometheusText
    ) {
        guard case .object(let kinds)? = figures else { return }
        for kind in kinds {
            for (percentile, quantile) in [("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("p99.9", "0.999"), ("p100", "1")] {
                guard let microseconds = kind.value[percentile]?.integer(as: UInt64.self) else { continue }
                text.add(name, .gauge, help, label + [("kind", kind.name), ("quantile", quantile)], microseconds)
            }
        }
    }

    private static func addCommits(
        _ figures: JSONValue?, _ label: [(name: String, value: String)], to text: inout PrometheusText
    ) {
        addPercentiles(
            figures, "qed_ublk_commit_latency_microseconds",
            "What so much of the commits, and of the syncs of the image's file, did not exceed since the server began.", label,
            to: &text)
        guard case .object(let kinds)? = figures else { return }
        for kind in kinds {
            guard let total = kind.value["total"]?.integer(as: UInt64.self) else { continue }
            text.add(
                "qed_ublk_commit_microseconds_total", .counter, "How long all commits, and all syncs, took together.",
                label + [("kind", kind.name)], total)
        }
    }

    private static func addCache(
        _ figures: JSONValue?, _ label: [(name: String, value: String)], to text: inout PrometheusText
    ) {
        for (result, counter) in [("hit", "hits"), ("miss", "misses")] {
            guard let count = figures?[counter]?.integer(as: UInt64.self) else { continue }
            text.add(
                "qed_ublk_cache_requests_total", .counter,
                "Reads and writes that found the pages of tables in memory (hit), or waited for one (miss).",
                label + [("result", result)], count)
        }
        let families: [(String, PrometheusText.Kind, String, String)] = [
            ("loads_total", .counter, "loads", "Pages of tables that were not in memory, and were loaded."),
            ("evictions_total", .counter, "evictions", "Pages of tables that made room for others."),
            ("pages", .gauge, "pages", "Pages of tables in memory."),
            ("bytes", .gauge, "bytes", "What these pages take."),
            ("budget_bytes", .gauge, "budget-bytes", "What such pages may take."),
        ]
        for (name, kind, figure, help) in families {
            for pages in ["l2", "chain"] {
                guard let value = figures?["\(pages)-\(figure)"]?.integer(as: UInt64.self) else { continue }
                text.add("qed_ublk_cache_\(name)", kind, help, label + [("pages", pages)], value)
            }
        }
    }

    private static func addRequests(
        _ figures: JSONValue, _ label: [(name: String, value: String)], to text: inout PrometheusText
    ) {
        let counters = figures["requests"]
        func value(_ name: String) -> UInt64 { counters?[name]?.integer() ?? 0 }
        let kinds = [
            ("read", "reads"), ("write", "writes"), ("flush", "flushes"), ("discard", "discards"), ("write_zeroes", "zeroings"),
        ]
        for (kind, counter) in kinds {
            text.add(
                "qed_ublk_requests_total", .counter, "Requests of the disk's users.", label + [("kind", kind)], value(counter))
        }
        for (kind, counter) in [("read", "read-bytes"), ("write", "written-bytes")] {
            text.add(
                "qed_ublk_request_bytes_total", .counter, "Bytes of those requests.", label + [("kind", kind)], value(counter))
        }
        text.add(
            "qed_ublk_request_failures_total", .counter, "Requests that were answered with an error.", label, value("failures"))
        text.add("qed_ublk_requests_under_way", .gauge, "Requests that have no answer yet.", label, value("under-way"))
        text.add(
            "qed_ublk_largest_requests_under_way", .gauge,
            "The most requests without an answer that one queue had, in one turn of eight.", label, value("largest-under-way"))
        text.add(
            "qed_ublk_queue_turns_total", .counter, "How often the queues' threads have entered the kernel.", label,
            value("turns"))
    }
}
