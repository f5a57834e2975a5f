import ArgumentParser
import DeviceServer
import Glibc
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

    @Flag(help: "Remove it even though it is in use: what its users have not written yet is written, and then they get I/O errors.")
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
        try ProcRequirement.check()
        let registry = DeviceRegistry()
        guard let device else {
            try removeAll(registry)
            return
        }
        let records = registry.find(DeviceReference(device))
        guard let record = records.first else { throw DelError.notFound(device) }
        guard records.count == 1 else { throw DelError.ambiguous(device, records.map(\.deviceID)) }
        try remove(record, registry, try UblkControlDevice())
    }

    private func removeAll(_ registry: DeviceRegistry) throws {
        let records = registry.list()
        if records.isEmpty { return }
        let control = try UblkControlDevice()
        var failure: (any Error)?
        for record in records {
            do { try remove(record, registry, control) } catch {
                if let failure { printError("\(failure)") }
                failure = error
            }
        }
        if let failure { throw failure }
    }

    private func remove(_ record: DeviceRecord, _ registry: DeviceRegistry, _ control: UblkControlDevice) throws {
        guard record.server.isRunning else { return try removeUnserved(record, registry, control) }
        let reply: ControlReply
        let timeoutSeconds = timeout ?? ControlRequest.defaultStopTimeoutSeconds
        do throws(ControlSocketError) {
            reply = try ControlSocketClient.send(
                .stop(force: force, timeoutSeconds: timeoutSeconds), deviceID: record.deviceID,
                timeout: .seconds(150 + timeoutSeconds))
        } catch {
            guard error.serverHasEnded else { throw error }
            // Somebody else's del was first, or it has died just now.
            waitForEnd(of: record)
            guard let left = registry.record(of: record.deviceID) else { return }
            guard left.server == record.server, !left.server.isRunning else { throw error }
            return try removeUnserved(left, registry, control)
        }
        if case .failure(let code, let sentence) = reply { throw DelError.refused(isBusy: code == .busy, sentence) }
        waitForEnd(of: record)
    }

    /// Until it has ended, a server has files of the image's file system open.
    private func waitForEnd(of record: DeviceRecord) {
        for _ in 0..<500 where record.server.isRunning { usleep(10_000) }
    }

    /// The server has died.
    private func removeUnserved(
        _ record: DeviceRecord, _ registry: DeviceRegistry, _ control: UblkControlDevice
    ) throws {
        var hold: DiskHold?
        defer { hold?.release() }
        if let waiting = try WaitingDevice(record, control) {
            hold = try prepareForRemoval(waiting)
            try stop(waiting, control, hold)
        } else if !record.isReadOnly {
            // What was lost is lost, or another server has it by now.
            _ = try? complete(record)
        }
        try removeOrphan(record, registry, control)
    }

    /// What the dead server had answered goes into the image before the device goes. In use it does not go: what waits for
    /// the next server would fail.
    /// - Returns: what keeps others from mounting it meanwhile, unless it goes in use.
    private func prepareForRemoval(_ device: WaitingDevice) throws -> DiskHold? {
        var hold: DiskHold?
        do throws(DiskUse) { hold = try DiskHold(ofDiskAt: device.path) } catch {
            guard force else { throw refusal(of: device, error) }
        }
        guard !device.record.isReadOnly else { return hold }
        do { try complete(device.record) } catch {
            guard force else { throw error }
            printError("\(error)")
        }
        return hold
    }

    private func refusal(of device: WaitingDevice, _ use: DiskUse) -> DelError {
        .refused(
            isBusy: true, "\(use), or give it a server again (qed-ublk recover \(device.record.deviceID)), or use --force")
    }

    /// The disk goes while it is had exclusively, so that nobody can mount it any more.
    private func stop(_ device: WaitingDevice, _ control: UblkControlDevice, _ hold: DiskHold?) throws {
        try control.stopDevice(device.record.deviceID, timeout: .seconds(60))
        hold?.release()
    }

    private func complete(_ record: DeviceRecord) throws {
        let backing = try BackingOptions.parse(record.backingArguments).policy()
        try LeftImage.complete(path: record.imagePath, backing: backing)
    }

    /// The kernel still has the device.
    private func removeOrphan(
        _ record: DeviceRecord, _ registry: DeviceRegistry, _ control: UblkControlDevice
    ) throws {
        let info = try control.existingDeviceInfo(record.deviceID, timeout: .seconds(5))
        // The number can be that of another program's device by now.
        if let info, !(info.state == .live && info.serverProcess != record.server.id) {
            if try !control.forgetDevice(record.deviceID) {
                printError(
                    "\(UblkPaths.blockDevice(record.deviceID)) is gone, but still mounted or open: unmount it, or close it")
            }
        }
        try registry.remove(record)
        for name in ["sock", "log"] { unlink("\(registry.directory)/ublk\(record.deviceID).\(name)") }
    }
}

enum DelError: ReportableError {
    case notFound(String)
    case ambiguous(String, [UInt32])
    case refused(isBusy: Bool, String)

    var exitStatus: ExitStatus {
        switch self {
        case .notFound: .notFound
        case .ambiguous: .usage
        case .refused(let isBusy, _): isBusy ? .busy : .failure
        }
    }

    var description: String {
        switch self {
        case .notFound(let device): "\(device): qed-ublk serves no such device; see 'qed-ublk list'"
        case .ambiguous(let image, let ids):
            "\(image) is served by \(ids.map(UblkPaths.blockDevice).joined(separator: " and ")); name the device"
        case .refused(_, let sentence): sentence
        }
    }
}
