import ArgumentParser
import DeviceServer
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
        try ProcRequirement.check()
        let control = try UblkControlDevice()
        guard let device else {
            try recoverAll(control)
            return
        }
        let records = DeviceRegistry().find(DeviceReference(device))
        guard let first = records.first else {
            if case .device(let id) = DeviceReference(device), OrphanedDevices.candidates(besides: []).contains(id),
                OrphanedDevices.server(of: id) == nil
            {
                throw WaitingDeviceError.orphan(id)
            }
            throw WaitingDeviceError.notFound(device)
        }
        let waiting = try records.compactMap { try WaitingDevice($0, control) }
        if let device = waiting.first {
            try device.recover(isSupervised: supervise)
        } else if records.contains(where: { $0.server.isRunning }) {
            throw WaitingDeviceError.isServed(UblkPaths.blockDevice(first.deviceID))
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
