import ArgumentParser
import DeviceServer
import Glibc
import Ublk

struct RecoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "recover",
        abstract: "Give devices that have lost their server another one.",
        discussion: """
            When a server dies its device waits: what was asked of it is asked of the next server again, and nothing that it \
            had answered is lost. Prints the path of each device once it is served. With this a program can also be replaced \
            by a later version under a mounted file system: end the server (kill, systemctl stop), and recover.

            Example: qed-ublk recover --all

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(help: "The device: /dev/ublkb0, ublkb0, 0, or its image's path.", transform: PathArgument.parse)
    var device: String?

    @Flag(help: "All devices that wait; one that cannot be recovered does not keep the others from it.")
    var all = false

    @Flag(help: "Start another server whenever this one dies, where no service manager does.")
    var supervise = false

    func validate() throws {
        guard all != (device != nil) else { throw ValidationError("name one device, or use --all") }
    }

    func run() throws {
        try DeviceRequirements.check()
        let control = try UblkControlDevice()
        guard let device else {
            try recoverAll(control)
            return
        }
        // Told to end a moment ago, as in an upgrade, it is not what serves the device from now on.
        for record in DeviceRegistry().find(DeviceReference(device)) { LeavingServer.waitForEnd(in: record) }
        let records = DeviceRegistry().find(DeviceReference(device))
        guard let first = records.first else {
            if case .device(let id) = DeviceReference(device), OrphanedDevices.candidates(besides: []).contains(id),
                OrphanedDevices.server(of: id) == nil
            {
                throw WaitingDeviceError.orphan(id)
            }
            if case .image(let path) = DeviceReference(device) { try WaitingImages.refuseReplaced(path) }
            throw WaitingDeviceError.notFound(device)
        }
        let waiting = try records.compactMap { try WaitingDevice($0, control) }
        if let device = waiting.first {
            try device.recover(isSupervised: supervise)
        } else if records.contains(where: { $0.server.isRunning }) {
            throw WaitingDeviceError.isServed(UblkPaths.blockDevice(first.deviceID))
        } else if try control.device(of: first, timeout: .seconds(5)) == nil {
            throw WaitingDeviceError.notFound(device)
        } else {
            throw WaitingDeviceError.cannotWait(UblkPaths.blockDevice(first.deviceID))
        }
    }

    /// All at once: the image of one can lie on another's disk, and its server goes on when that has one. Those whose images
    /// lie on no other come first.
    private func recoverAll(_ control: UblkControlDevice) throws {
        var failure: (any Error)?
        func note(_ error: any Error) {
            if let failure { printError("\(failure)") }
            failure = error
        }
        var starts: [(WaitingDevice, BackgroundServer.Start)] = []
        for record in DeviceRegistry().list() { LeavingServer.waitForEnd(in: record) }
        for record in StackedDevices.bottomFirst(DeviceRegistry().list()) {
            do {
                guard let device = try WaitingDevice(record, control) else { continue }
                starts.append((device, try device.startServer(isSupervised: supervise)))
            } catch {
                note(error)
            }
        }
        for (device, start) in starts {
            do { try device.finish(start) } catch { note(error) }
        }
        if let failure { throw failure }
    }
}

/// A server that a signal has asked to end, and that has not ended yet.
enum LeavingServer {
    private static let deadlineSeconds = 120

    /// Waits for its end; for one that does not leave, or does not say so, not at all.
    static func waitForEnd(in record: DeviceRecord) {
        var isKnownToLeave = false
        for _ in 0..<(deadlineSeconds * 10) where record.server.isRunning {
            do throws(ControlSocketError) {
                let reply = try ControlSocketClient.send(.status, deviceID: record.deviceID, timeout: .seconds(5))
                guard case .success(let status) = reply, status["leaving"] == .bool(true) else { return }
                isKnownToLeave = true
            } catch {
                // Its last step: nobody is answered any more. One whose socket somebody has removed may serve for years.
                guard error.serverHasEnded else { return }
                if case .noSocket = error, !isKnownToLeave { return }
            }
            usleep(100_000)
        }
    }
}
