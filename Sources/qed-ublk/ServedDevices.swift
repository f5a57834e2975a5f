import DeviceServer
import Glibc
import SystemPackage
import Ublk

/// A device that this program made, as the registry and the kernel know it together.
struct KnownDevice {
    var record: DeviceRecord
    /// What the kernel says; nil when it has no such device any more, or does not say.
    var info: UblkDeviceInfo?
    /// Of the image, as the device has it; nil when it cannot be told.
    var sizeBytes: UInt64?
    /// Of the device's logical blocks; nil when it cannot be told.
    var blockSizeBytes: Int?

    /// What its server takes; nil where it has none or it cannot be told.
    var memory: ServerMemory? { record.server.isRunning ? ServerMemory(process: record.server.id) : nil }

    var path: String { UblkPaths.blockDevice(record.deviceID) }

    var state: String {
        guard record.server.isRunning else {
            return info?.features.contains(.userRecovery) == true ? "waiting" : "dead"
        }
        return record.hasFailed ? "failed" : info.map { "\($0.state)" } ?? "unknown"
    }
}

enum KnownDevices {
    /// All devices that have a record and exist. Records of devices that are gone are removed.
    static func all(registry: DeviceRegistry = DeviceRegistry()) throws -> [KnownDevice] {
        let records = registry.list()
        // Without a record there is nothing to ask the kernel about, and no right to ask is needed.
        if records.isEmpty { return [] }
        do {
            let control = try UblkControlDevice()
            return try records.compactMap { try device($0, control, registry) }
        } catch UblkControlError.notPermitted {
            // Only root may ask the kernel; what the records say everybody may know.
            return records.map { KnownDevice(record: $0) }
        } catch UblkControlError.noDriver {
            // The module cannot go before the last device; but a container may not see it.
            for record in records where !record.server.isRunning { try? registry.remove(record) }
            return records.filter(\.server.isRunning).map { KnownDevice(record: $0) }
        }
    }

    /// nil when the device is gone.
    private static func device(
        _ record: DeviceRecord, _ control: UblkControlDevice, _ registry: DeviceRegistry
    ) throws -> KnownDevice? {
        guard let info = try control.existingDeviceInfo(record.deviceID, timeout: .seconds(5)) else {
            if !record.server.isRunning { try? registry.remove(record) }
            return nil
        }
        var device = KnownDevice(record: record, info: info)
        if let parameters = try control.parameters(record.deviceID) {
            device.sizeBytes = parameters.basic.deviceSectors << 9
            device.blockSizeBytes = 1 << Int(parameters.basic.logicalBlockShift)
        }
        return device
    }
}
