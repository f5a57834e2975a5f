import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import Platform
import SystemPackage
import Ublk

struct DelCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "del",
        abstract: "Remove a device.",
        discussion: """
            Returns when the device is gone, everything that was written to it is in the image, and the image is free for \
            other programs. A device that is in use is refused, and the sentence says by what: it, or a partition of it, is \
            mounted, swap, under another device, served by the kernel to other machines, or open in a program.

            Example: qed-ublk del /dev/ublkb0

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(help: "The device: /dev/ublkb0, ublkb0, 0, or its image's path.", transform: PathArgument.parse)
    var device: String?

    @Flag(help: "All devices; one that cannot be removed does not keep the others from it.")
    var all = false

    @Flag(
        help: "Remove it even though it is in use: what its users have not written yet is written, and then they get I/O errors.")
    var force = false

    @Option(
        help: ArgumentHelp(
            "With --force: how long what its users have not written yet may take to be written. (default: 30)",
            valueName: "seconds"))
    var timeout: Int?

    func validate() throws {
        guard all != (device != nil) else { throw ValidationError("name one device, or use --all") }
        guard let timeout else { return }
        guard ControlRequest.stopTimeoutRange.contains(timeout) else {
            throw ValidationError("--timeout must be between 0 and \(ControlRequest.stopTimeoutRange.upperBound) seconds")
        }
        guard force else { throw ValidationError("--timeout goes with --force: a disk that nobody uses has nothing to wait for") }
    }

    func run() throws {
        try DeviceRequirements.check()
        let registry = DeviceRegistry()
        guard let device else {
            try removeAll(registry)
            return
        }
        let reference = DeviceReference(device)
        let records = registry.find(reference)
        guard let record = records.first else {
            guard case .device(let id) = reference else { throw DelError.notFound(device) }
            try removeOrphan(id, device, registry)
            return
        }
        guard records.count == 1 else { throw DelError.ambiguous(device, records.map(\.deviceID)) }
        try remove(record, registry, try UblkControlDevice())
    }

    /// The devices whose images lie on others of them first. Orphans stay: they can be another program's.
    private func removeAll(_ registry: DeviceRegistry) throws {
        let records = StackedDevices.topFirst(registry.list())
        if records.isEmpty { return }
        let control = try UblkControlDevice()
        var failure: (any Error)?
        for record in records {
            do { try remove(record, registry, control) } catch DelError.gone {
                // Nothing is left to be removed.
            } catch {
                if let failure { printError("\(failure)") }
                failure = error
            }
        }
        if let failure { throw failure }
    }

    /// How often a device may get another server while it is to be removed.
    private static let mostServers = 5

    private func remove(_ record: DeviceRecord, _ registry: DeviceRegistry, _ control: UblkControlDevice) throws {
        var record = record
        for _ in 0..<DelCommand.mostServers {
            if record.server.isRunning, try serverRemoves(record) { return }
            // From here on no server can take it over; one that is about to is waited for.
            let lock = try DeviceLock(ofDevice: record.deviceID)
            defer { lock.release() }
            let current = registry.record(of: record.deviceID)
            if let info = try control.existingDeviceInfo(record.deviceID, timeout: .seconds(5)), current?.isOf(info) != true {
                if let current {
                    // Of a device before it. Whose this one is nobody has said: it is not taken for the one that was meant.
                    try registry.remove(current)
                    throw DelError.gone(UblkPaths.blockDevice(record.deviceID), image: current.imagePath)
                }
                // Somebody else's del was first, and could not delete it.
                lock.release()
                return try removeOrphan(record.deviceID, UblkPaths.blockDevice(record.deviceID), registry)
            }
            guard let current else { return }
            guard current.server.isRunning else { return try removeUnserved(current, registry, control) }
            record = current
        }
        throw DelError.refused(isBusy: true, "\(UblkPaths.blockDevice(record.deviceID)) gets one server after another; try again")
    }

    /// Asks the device's server to remove it.
    /// - Returns: false where the server ends, or has not begun to listen.
    private func serverRemoves(_ record: DeviceRecord) throws -> Bool {
        let reply: ControlReply
        let timeoutSeconds = timeout ?? ControlRequest.defaultStopTimeoutSeconds
        do throws(ControlSocketError) {
            reply = try ControlSocketClient.send(
                .stop(force: force, timeoutSeconds: timeoutSeconds), deviceID: record.deviceID,
                timeout: .seconds(150 + timeoutSeconds))
        } catch {
            guard error.serverHasEnded else { throw error }
            waitForEnd(of: record)
            // One that had just begun has its socket by now.
            guard case .noSocket(let path) = error, record.server.isRunning, access(path, F_OK) != 0 else { return false }
            throw DelError.unreachable(UblkPaths.blockDevice(record.deviceID), record.server.id)
        }
        if case .failure(let code, let sentence) = reply { throw DelError.refused(isBusy: code == .busy, sentence) }
        waitForEnd(of: record)
        return true
    }

    /// Until it has ended, a server has files of the image's file system open.
    private func waitForEnd(of record: DeviceRecord) {
        for _ in 0..<500 where record.server.isRunning { usleep(10_000) }
    }

    /// The server has died, and no other can come: the device is locked.
    private func removeUnserved(
        _ record: DeviceRecord, _ registry: DeviceRegistry, _ control: UblkControlDevice
    ) throws {
        if let waiting = try WaitingDevice(record, control) {
            let hold = try prepareForRemoval(waiting, registry)
            do { try stop(waiting.info, control, hold) } catch DelError.refused(_, let sentence) {
                throw refusal(of: waiting, sentence)
            }
        } else if let info = try control.device(of: record, timeout: .seconds(5)), info.state == .live,
            info.serverProcess != record.server.id, ProcessIdentity(running: info.serverProcess) != nil
        {
            // The record is that of an earlier server: somebody has put it back.
            throw DelError.served(UblkPaths.blockDevice(record.deviceID), by: info.serverProcess)
        } else if !record.isReadOnly, !isServedAgain(record, registry) {
            do { _ = try complete(record) } catch {
                // Where there is no device any more, nothing is kept by refusing.
                let isGone = try control.device(of: record, timeout: .seconds(5)) == nil
                guard force || isGone else { throw error }
                printError("\(error)")
            }
        }
        let isGone = try control.device(of: record, timeout: .seconds(5)) == nil
        // What it says can have changed by now: how the image is left.
        guard registry.record(of: record.deviceID)?.server == record.server else { return }
        try registry.remove(record.deviceID)
        try forget(record.deviceID, registry, isGone ? nil : control)
    }

    /// What the dead server had answered goes into the image before the device goes. In use it does not go: what waits for
    /// the next server would fail.
    /// - Returns: what keeps others from mounting it meanwhile, unless it goes in use.
    private func prepareForRemoval(_ device: WaitingDevice, _ registry: DeviceRegistry) throws -> DiskHold? {
        var hold: DiskHold?
        do throws(DiskUse) { hold = try DiskHold(ofDiskAt: device.path) } catch {
            guard force else { throw refusal(of: device, "\(error)") }
        }
        guard !device.record.isReadOnly else { return hold }
        do {
            // If it is not removed after all, the next server finds the image as this one leaves it.
            var record = device.record
            record.leftImage = try complete(record)
            try registry.record(record)
        } catch {
            guard force else { throw error }
            printError("\(error)")
        }
        return hold
    }

    private func refusal(of device: WaitingDevice, _ sentence: String) -> DelError {
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
                throw DelError.refused(
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
        if let use { throw DelError.refused(isBusy: true, "\(use)") }
    }

    /// Whether the image has another device by now, whose server has found what this one's had answered, wherever its file is.
    private func isServedAgain(_ record: DeviceRecord, _ registry: DeviceRegistry) -> Bool {
        registry.list().contains {
            $0.deviceID != record.deviceID && $0.image == record.image && !$0.isReadOnly && $0.server.isRunning
        }
    }

    private func complete(_ record: DeviceRecord) throws -> ImageMark? {
        let backing = try BackingOptions.parse(record.backingArguments).policy()
        return try LeftImage.complete(record, backing: backing) { printError("\(record.imagePath): \($0)") }
    }

    /// A device that nobody knows, if nobody serves it either.
    /// - Parameter name: as the user has named it.
    private func removeOrphan(_ id: UInt32, _ name: String, _ registry: DeviceRegistry) throws {
        guard OrphanedDevices.candidates(besides: []).contains(id) else { throw DelError.notFound(name) }
        let control = try UblkControlDevice()
        let path = UblkPaths.blockDevice(id)
        if let server = OrphanedDevices.server(of: id) { throw DelError.served(path, by: server) }
        guard let info = OrphanedDevices.info(of: id, control) else { throw DelError.notFound(name) }
        let lock = try DeviceLock(ofDevice: id)
        defer { lock.release() }
        guard registry.record(of: id) == nil else {
            throw DelError.refused(isBusy: true, "\(path) has just been added; try again")
        }
        var hold: DiskHold?
        do throws(DiskUse) { hold = try DiskHold(ofDiskAt: path) } catch {
            guard force else { throw DelError.refused(isBusy: true, "\(error), or use --force") }
        }
        if info.state != .dead { try stop(info, control, hold) }
        hold?.release()
        try forget(id, registry, control)
    }

    /// Takes away the files of a device that has stopped, while its number cannot be another one's yet, and then the device.
    /// - Parameter control: nil where there is no such device.
    private func forget(_ id: UInt32, _ registry: DeviceRegistry, _ control: UblkControlDevice?) throws {
        for name in ["sock", "log", "log.1"] { unlink("\(registry.directory)/ublk\(id).\(name)") }
        if let control, try !control.forgetDevice(id) {
            printError("\(UblkPaths.blockDevice(id)) is gone, but still mounted or open: unmount it, or close it")
        }
    }
}

enum DelError: ReportableError {
    case notFound(String)
    case ambiguous(String, [UInt32])
    case refused(isBusy: Bool, String)
    /// What its record says is of an earlier device.
    case gone(String, image: String)
    /// Its server runs, and its control socket is gone.
    case unreachable(String, Int32)
    /// By a process that this program has no record of.
    case served(String, by: Int32)

    var exitStatus: ExitStatus {
        switch self {
        case .notFound, .gone: .notFound
        case .ambiguous: .usage
        case .served, .unreachable: .busy
        case .refused(let isBusy, _): isBusy ? .busy : .failure
        }
    }

    var description: String {
        switch self {
        case .notFound(let device): "\(device): qed-ublk serves no such device; see 'qed-ublk list'"
        case .ambiguous(let image, let ids):
            "\(image) is served by \(ids.map(UblkPaths.blockDevice).joined(separator: " and ")); name the device"
        case .refused(_, let sentence): sentence
        case .gone(let device, let image):
            "the record of \(device) was that of an earlier device, of \(image), which is gone, and is removed; the one that has "
                + "its number now is another: see 'qed-ublk list'"
        case .unreachable(let device, let process):
            "the server of \(device) (process \(process)) cannot be asked, as it has no control socket: it is about to end, or "
                + "somebody has removed the socket, and then 'kill \(process)' removes the device once nobody uses it"
        case .served(let device, let process):
            "\(device) is served by \(ProcessFiles.name(ofProcess: process)) (process \(process)), of which there is no record: "
                + "if it is qed-ublk, 'kill \(process)' removes the device once nobody uses it"
        }
    }
}
