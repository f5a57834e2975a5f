import CSupport
import Platform
import Ublk

/// What the servers of all devices had counted at a moment.
package struct DeviceSample: Sendable {
    package var device: String
    /// As `list` names it.
    package var state: String
    package var image: String
    /// Of the server that has counted; a next one begins at 0.
    var server: Int32?
    /// nil where the server does not tell.
    var figures: JSONValue?
    /// Of the monotonic clock.
    var nanoseconds: UInt64

    /// Of all devices, in the order of their numbers. Blocks until each server has answered, or does not.
    package static func ofAll(registry: DeviceRegistry = DeviceRegistry()) throws -> [DeviceSample] {
        try KnownDevices.all(registry: registry).map { device in
            DeviceSample(
                device: "ublkb\(device.id)", state: device.state, image: device.record?.imagePath ?? "?",
                server: device.server, figures: DeviceFigures.ofServer(of: device, registry),
                nanoseconds: cs_monotonic_nanoseconds())
        }
    }
}

/// What a device did in each second between two moments.
package struct DeviceRates: Equatable, Sendable {
    package var reads = 0.0
    package var writes = 0.0
    package var readBytes = 0.0
    package var writtenBytes = 0.0
    package var flushes = 0.0
    /// Of the image's file, for flushes and whatever else needs one.
    package var syncs = 0.0
    /// Requests that had no answer at the second moment.
    package var underWay: UInt64 = 0

    package init() {}

    /// nil where that cannot be told: one of the moments is missing, or another server has counted since.
    package init?(from before: DeviceSample?, to now: DeviceSample) {
        guard let before, before.device == now.device, before.server == now.server, let old = before.figures,
            let new = now.figures, now.nanoseconds > before.nanoseconds
        else { return nil }
        let seconds = Double(now.nanoseconds - before.nanoseconds) / 1e9
        func rate(_ group: String, _ counter: String) -> Double {
            let counts = [old, new].map { $0[group]?[counter]?.integer(as: UInt64.self) ?? 0 }
            return counts[1] >= counts[0] ? Double(counts[1] - counts[0]) / seconds : 0
        }
        reads = rate("requests", "reads")
        writes = rate("requests", "writes")
        readBytes = rate("requests", "read-bytes")
        writtenBytes = rate("requests", "written-bytes")
        flushes = rate("requests", "flushes")
        syncs = rate("storage-operations", "fsyncs")
        underWay = new["requests"]?["under-way"]?.integer() ?? 0
    }

    package static func + (left: DeviceRates, right: DeviceRates) -> DeviceRates {
        var sum = left
        sum.reads += right.reads
        sum.writes += right.writes
        sum.readBytes += right.readBytes
        sum.writtenBytes += right.writtenBytes
        sum.flushes += right.flushes
        sum.syncs += right.syncs
        sum.underWay += right.underWay
        return sum
    }
}
