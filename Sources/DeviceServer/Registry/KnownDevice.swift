import Glibc
import Platform
import Ublk

/// A device of this program, as the registry and the kernel know it together; or one that nobody serves and nobody knows.
public struct KnownDevice {
    public let id: UInt32
    /// nil: an orphan.
    public var record: DeviceRecord?
    /// What the kernel says; nil when it does not say.
    public var info: UblkDeviceInfo?
    /// Of the image, as the device has it; nil when it cannot be told.
    public var sizeBytes: UInt64?
    /// Of the device's logical blocks; nil when it cannot be told.
    public var blockSizeBytes: Int?

    public init(record: DeviceRecord) {
        id = record.deviceID
        self.record = record
    }

    public init(orphan info: UblkDeviceInfo) {
        id = info.id
        self.info = info
    }

    /// nil where it has none.
    public var server: Int32? { record.flatMap { $0.server.isRunning ? $0.server.id : nil } }

    /// What its server takes; nil where it has none or it cannot be told.
    public var memory: ServerMemory? { server.flatMap { ServerMemory(process: $0) } }

    public var path: String { UblkPaths.blockDevice(id) }

    /// One of those that the help of `list` names.
    public var state: String {
        guard let record else { return "orphan" }
        guard server == nil else {
            // Its server is about to end, or about to serve: the driver knows of none.
            if info?.state.isRecoverable == true { return "waiting" }
            if record.goesWhenUnused { return "leaving" }
            return record.hasFailed ? "failed" : info.map { "\($0.state)" } ?? "unknown"
        }
        // Only root may ask the kernel; but without recovery the disk goes with its server.
        guard let info else { return access("/sys/class/block/ublkb\(id)", F_OK) == 0 ? "waiting" : "dead" }
        return info.features.contains(.userRecovery) && info.state != .dead ? "waiting" : "dead"
    }
}

/// What there is of this program's devices.
public enum KnownDevices {
    /// How long one device may keep the others from being listed: a stop that waits for its requests holds what is asked.
    private static let patience = Duration.seconds(2)

    /// All devices that have a record and exist, and the orphans. Records of devices that are gone are removed.
    /// - Throws: what `DeviceRequirements` says, or `UblkControlError` where the kernel cannot be asked at all.
    public static func all(registry: DeviceRegistry = DeviceRegistry()) throws -> [KnownDevice] {
        try DeviceRequirements.check()
        let records = registry.list()
        // Where there is nothing to ask the kernel about no right to ask is needed.
        if records.isEmpty && OrphanedDevices.candidates(besides: []).isEmpty { return [] }
        do {
            let control = try UblkControlDevice()
            let known = try records.compactMap { try device($0, control, registry) }
            // A record whose device is gone says nothing of the one that has its number now.
            let others = OrphanedDevices.candidates(besides: known.map(\.id))
            let orphans = others.compactMap { OrphanedDevices.info(of: $0, control).map(KnownDevice.init(orphan:)) }
            return (known + orphans).sorted { $0.id < $1.id }
        } catch UblkControlError.notPermitted {
            // What the records say everybody may know.
            return records.map { KnownDevice(record: $0) }
        } catch UblkControlError.noDriver {
            // The module cannot go before the last device; but a container may not see it.
            for record in records where !record.server.isRunning { try? registry.remove(record) }
            return records.filter(\.server.isRunning).map { KnownDevice(record: $0) }
        }
    }

    /// Those of `all` that are meant, in the order in which they are named; an image can have several.
    /// - Throws: `DeviceReferenceError.notFound`.
    public static func named(
        _ names: [String], of all: [KnownDevice], registry: DeviceRegistry = DeviceRegistry()
    ) throws -> [KnownDevice] {
        var chosen: [KnownDevice] = []
        for name in names {
            let ids: [UInt32] =
                switch DeviceReference(name) {
                case .device(let id): [id]
                case .image: registry.find(DeviceReference(name)).map(\.deviceID)
                }
            let named = all.filter { ids.contains($0.id) }
            guard !named.isEmpty else { throw DeviceReferenceError.notFound(name) }
            chosen += named.filter { device in !chosen.contains { $0.id == device.id } }
        }
        return chosen
    }

    /// nil when the device is gone.
    private static func device(
        _ record: DeviceRecord, _ control: UblkControlDevice, _ registry: DeviceRegistry
    ) throws -> KnownDevice? {
        var device = KnownDevice(record: record)
        do throws(UblkControlError) {
            guard let info = try control.device(of: record, timeout: patience) else {
                if !record.server.isRunning { try? registry.remove(record) }
                return nil
            }
            device.info = info
            if let parameters = try control.parameters(record.deviceID, timeout: patience) {
                device.sizeBytes = parameters.basic.deviceSectors << 9
                device.blockSizeBytes = 1 << Int(parameters.basic.logicalBlockShift)
            }
        } catch .notPermitted(let path) {
            throw UblkControlError.notPermitted(path: path)
        } catch {
            // Slow, or going at this moment: what is known of it is shown, and the others are.
        }
        return device
    }
}
