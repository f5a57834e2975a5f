import BlockStorage
import Glibc
import Platform
import SystemPackage
import Ublk

/// `del`: takes devices away, whether they have a server, wait for one, or are nobody's.
public struct DeviceRemoval {
    /// Even where it is in use.
    private let force: Bool
    private let timeoutSeconds: Int
    /// One that is in use goes when that has ended.
    private let isLazy: Bool
    private let registry: DeviceRegistry
    private let tell: (String) -> Void

    /// - Parameters:
    ///   - force: also where a device is in use: what its users have not written yet is written, and then they get errors.
    ///   - timeoutSeconds: how long that may take to be written.
    ///   - isLazy: one that is in use goes when its last user has gone.
    ///   - tell: is given sentences for the user, of what did not go well and yet does not keep the device from going.
    public init(
        force: Bool, timeoutSeconds: Int = ControlRequest.defaultStopTimeoutSeconds, isLazy: Bool = false,
        registry: DeviceRegistry = DeviceRegistry(), tell: @escaping (String) -> Void
    ) {
        self.force = force
        self.timeoutSeconds = timeoutSeconds
        self.isLazy = isLazy
        self.registry = registry
        self.tell = tell
    }

    /// Returns when the device is gone, and everything that was written to it is in the image.
    /// - Parameter name: as `DeviceReference` reads it.
    public func remove(named name: String) throws {
        try DeviceRequirements.check()
        let reference = DeviceReference(name)
        let records = registry.find(reference)
        guard let record = records.first else {
            guard case .device(let id) = reference else { throw DeviceReferenceError.notFound(name) }
            try removeOrphan(id, name)
            return
        }
        guard records.count == 1 else { throw DeviceReferenceError.ambiguous(name, records.map(\.deviceID)) }
        try remove(record, try UblkControlDevice())
    }

    /// The devices whose images lie on others of them first. Orphans stay: they can be another program's.
    /// - Parameter failed: is given why one was not removed; the others are.
    public func removeAll(failed: (any Error) -> Void) throws {
        try DeviceRequirements.check()
        let records = StackedDevices.topFirst(registry.list())
        if records.isEmpty { return }
        let control = try UblkControlDevice()
        for record in records {
            do { try remove(record, control) } catch RemovalError.gone {
                // Nothing is left to be removed.
            } catch {
                failed(error)
            }
        }
    }

    /// How often a device may get another server while it is to be removed.
    private static let mostServers = 5

    func remove(_ record: DeviceRecord, _ control: UblkControlDevice) throws {
        let supervisor = DepartingSupervisor(ofDevice: record.deviceID)
        try removeDevice(record, control)
        supervisor.waitForEnd()
    }

    private func removeDevice(_ record: DeviceRecord, _ control: UblkControlDevice) throws {
        var record = record
        for _ in 0..<Self.mostServers {
            if record.server.isRunning, try serverRemoves(record) { return }
            // From here on no server can take it over; one that is about to is waited for.
            let lock = try DeviceLock(ofDevice: record.deviceID)
            defer { lock.release() }
            let current = registry.record(of: record.deviceID)
            if let info = try control.existingDeviceInfo(record.deviceID, timeout: .seconds(5)), current?.isOf(info) != true {
                if let current {
                    // Of a device before it. Whose this one is nobody has said: it is not taken for the one that was meant.
                    try registry.remove(current)
                    throw RemovalError.gone(UblkPaths.blockDevice(record.deviceID), image: current.imagePath)
                }
                // Somebody else's del was first, and could not delete it.
                lock.release()
                return try removeOrphan(record.deviceID, UblkPaths.blockDevice(record.deviceID))
            }
            guard let current else { return }
            guard current.server.isRunning else { return try removeUnserved(current, control) }
            record = current
        }
        throw RemovalError.refused(
            isBusy: true, "\(UblkPaths.blockDevice(record.deviceID)) gets one server after another; try again")
    }

    /// Asks the device's server to remove it.
    /// - Returns: false where the server ends, or has not begun to listen.
    private func serverRemoves(_ record: DeviceRecord) throws -> Bool {
        let reply: ControlReply
        do throws(ControlSocketError) {
            reply = try ControlSocketClient.send(
                isLazy ? .stopWhenUnused : .stop(force: force, timeoutSeconds: timeoutSeconds), deviceID: record.deviceID,
                directory: registry.directory, timeout: .seconds(150 + timeoutSeconds))
        } catch {
            guard error.serverHasEnded else { throw error }
            waitForEnd(of: record)
            // One that had just begun has its socket by now.
            guard case .noSocket(let path) = error, record.server.isRunning, access(path, F_OK) != 0 else { return false }
            throw RemovalError.unreachable(UblkPaths.blockDevice(record.deviceID), record.server.id)
        }
        switch reply {
        case .failure(let code, let sentence): throw RemovalError.refused(isBusy: code == .busy, sentence)
        case .success(let result):
            if let use = result["in-use"]?.text {
                tell("\(use); it goes when that has ended")
                return true
            }
        }
        waitForEnd(of: record)
        return true
    }

    /// Until it has ended, a server has files of the image's file system open.
    private func waitForEnd(of record: DeviceRecord) {
        for _ in 0..<500 where record.server.isRunning { usleep(10_000) }
    }

    /// The server has died, and no other can come: the device is locked.
    private func removeUnserved(_ record: DeviceRecord, _ control: UblkControlDevice) throws {
        if let waiting = try WaitingDevice(record, control) {
            let hold = try prepareForRemoval(waiting)
            do { try stop(waiting.info, control, hold) } catch RemovalError.refused(_, let sentence) {
                throw refusal(of: waiting, sentence)
            }
        } else if let info = try control.device(of: record, timeout: .seconds(5)), info.state == .live,
            info.serverProcess != record.server.id, ProcessIdentity(running: info.serverProcess) != nil
        {
            // The record is that of an earlier server: somebody has put it back.
            throw RemovalError.served(UblkPaths.blockDevice(record.deviceID), by: info.serverProcess)
        } else if record.changesImage, !isServedAgain(record) {
            do { _ = try complete(record) } catch {
                // Where there is no device any more, nothing is kept by refusing.
                let isGone = try control.device(of: record, timeout: .seconds(5)) == nil
                guard force || isGone else { throw error }
                tell("\(error)")
            }
        }
        let isGone = try control.device(of: record, timeout: .seconds(5)) == nil
        // What it says can have changed by now: how the image is left.
        guard registry.record(of: record.deviceID)?.server == record.server else { return }
        try registry.remove(record.deviceID)
        try forget(record.deviceID, isGone ? nil : control)
    }

    /// What the dead server had answered goes into the image before the device goes. In use it does not go: what waits for
    /// the next server would fail.
    /// - Returns: what keeps others from mounting it meanwhile, unless it goes in use.
    private func prepareForRemoval(_ device: WaitingDevice) throws -> DiskHold? {
        var hold: DiskHold?
        do throws(DiskUse) { hold = try DiskHold(ofDiskAt: device.path) } catch {
            guard force else { throw refusal(of: device, "\(error)") }
        }
        guard device.record.changesImage else { return hold }
        do {
            // If it is not removed after all, the next server finds the image as this one leaves it.
            var record = device.record
            record.leftImage = try complete(record)
            record.unsealedSnapshot = nil
            try registry.record(record)
        } catch {
            guard force else { throw error }
            tell("\(error)")
        }
        return hold
    }

    private func refusal(of device: WaitingDevice, _ sentence: String) -> RemovalError {
        .refused(
            isBusy: true, "\(sentence), or give it a server again (qed-ublk recover \(device.record.deviceID)), or use --force")
    }

    /// The disk of a dead server goes, unless it is in use; without a hold it goes in use.
    private func stop(_ info: UblkDeviceInfo, _ control: UblkControlDevice, _ hold: DiskHold?) throws {
        // Told to stop a device whose server has been killed and does not end (a thread of it waits in the kernel), the driver
        // waits for the requests that this had, with the device's mutex: then nobody can even ask for the device any more.
        if info.state == .live {
            try control.waitForServerDeath(info.id, timeout: .seconds(40))
            guard try control.deviceInfo(info.id).state != .live else {
                let path = UblkPaths.blockDevice(info.id)
                throw RemovalError.refused(
                    isBusy: true, "the kernel has not noticed yet that the server of \(path) has ended; try again")
            }
        }
        guard let hold else { return try control.stopDevice(info.id, timeout: UblkControlDevice.stopTimeout) }
        let use: DiskUse?
        do throws(UblkControlError) { use = try control.stopUnused(info, hold) } catch {
            // ENODEV: it has no disk any more.
            guard error.errno == .operationNotSupportedByDevice else { throw error }
            return try control.stopDevice(info.id, timeout: UblkControlDevice.stopTimeout)
        }
        if let use { throw RemovalError.refused(isBusy: true, "\(use)") }
    }

    /// Whether the image has another device by now, whose server has found what this one's had answered, wherever its file is.
    private func isServedAgain(_ record: DeviceRecord) -> Bool {
        registry.list().contains {
            $0.deviceID != record.deviceID && $0.image == record.image && $0.changesImage && $0.server.isRunning
        }
    }

    private func complete(_ record: DeviceRecord) throws -> ImageMark? {
        let backing = try BackingChoice(arguments: record.backingArguments).policy()
        return try LeftImage.complete(record, backing: backing) { tell("\(record.imagePath): \($0)") }
    }

    /// A device that nobody knows, if nobody serves it either.
    /// - Parameter name: as the user has named it.
    private func removeOrphan(_ id: UInt32, _ name: String) throws {
        guard OrphanedDevices.candidates(besides: []).contains(id) else { throw DeviceReferenceError.notFound(name) }
        let control = try UblkControlDevice()
        let path = UblkPaths.blockDevice(id)
        if let server = OrphanedDevices.server(of: id) { throw RemovalError.served(path, by: server) }
        guard let info = OrphanedDevices.info(of: id, control) else { throw DeviceReferenceError.notFound(name) }
        let lock = try DeviceLock(ofDevice: id)
        defer { lock.release() }
        guard registry.record(of: id) == nil else {
            throw RemovalError.refused(isBusy: true, "\(path) has just been added; try again")
        }
        var hold: DiskHold?
        do throws(DiskUse) { hold = try DiskHold(ofDiskAt: path) } catch {
            guard force else { throw RemovalError.refused(isBusy: true, "\(error), or use --force") }
        }
        if info.state != .dead { try stop(info, control, hold) }
        hold?.release()
        try forget(id, control)
    }

    /// Takes away the files of a device that has stopped, while its number cannot be another one's yet, and then the device.
    /// - Parameter control: nil where there is no such device.
    private func forget(_ id: UInt32, _ control: UblkControlDevice?) throws {
        for name in ["sock", "log", "log.1"] { unlink("\(registry.directory)/ublk\(id).\(name)") }
        if let control, try !control.forgetDevice(id) {
            tell("\(UblkPaths.blockDevice(id)) is gone, but still mounted or open: unmount it, or close it")
        }
    }
}
