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
        addRequests(figures, label, to: &text)
        addLatencies(figures["latency-microseconds"], label, to: &text)
        guard case .object(let operations)? = figures["storage-operations"] else { return }
        for operation in operations {
            text.add(
                "qed_ublk_storage_operations_total", .counter,
                "What became of the requests in the image's files, as 'qed-ublk stats' names it.",
                label + [("operation", operation.name)], operation.value.integer() ?? 0)
        }
    }

    private static func addLatencies(
        _ figures: JSONValue?, _ label: [(name: String, value: String)], to text: inout PrometheusText
    ) {
        guard case .object(let kinds)? = figures else { return }
        for kind in kinds {
            for (percentile, quantile) in [("p50", "0.5"), ("p90", "0.9"), ("p99", "0.99"), ("p99.9", "0.999"), ("p100", "1")] {
                guard let microseconds = kind.value[percentile]?.integer(as: UInt64.self) else { continue }
                text.add(
                    "qed_ublk_request_latency_microseconds", .gauge,
                    "What so much of the requests did not exceed since the server began, of one turn in eight.",
                    label + [("kind", kind.name), ("quantile", quantile)], microseconds)
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
            "qed_ublk_queue_turns_total", .counter, "How often the queues' threads have entered the kernel.", label,
            value("turns"))
    }
}
