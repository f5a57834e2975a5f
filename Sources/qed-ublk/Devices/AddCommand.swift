import ArgumentParser
import BlockStorage
import DeviceServer
import Logging
import QEDChain
import QEDEngine
import Ublk

struct AddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add",
        abstract: "Make a block device of an image.",
        discussion: """
            Prints the device's path, and nothing else, once the device is usable. A server process for it stays in the \
            background until 'qed-ublk del'. Where anything fails nothing is left behind. Needs root, and a kernel with \
            ublk (\(KernelRelease.oldest) or later; modprobe ublk_drv).

            When a server dies, or gets SIGTERM while its device is in use, the device waits for the next server: adding \
            the image again, or 'qed-ublk recover', goes on where it was. The device is as it was made then: an option that asks \
            for something else is refused.

            Example: mkfs.ext4 $(qed-ublk add disk.qed)

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var device: DeviceOptions

    @Flag(name: [.customShort("f"), .long], help: "Do not go into the background; log to standard error; end with Ctrl-C.")
    var foreground = false

    @Flag(help: "Start another server whenever this one dies, where no service manager does.")
    var supervise = false

    func validate() throws {
        guard !(foreground && supervise) else {
            throw ValidationError("--supervise goes with a server in the background; in the foreground you are its supervisor")
        }
        guard !(device.noRecovery && supervise) else {
            throw ValidationError("--supervise needs a device that waits for its next server: leave out --no-recovery")
        }
    }

    func run() throws {
        // In the background the server is another process, that gets nothing.
        if foreground { Detachment.closeGivenDescriptors() }
        try DeviceRequirements.check()
        let waiting = try WaitingDevice.ofImage(device.image)
        if let waiting { try waiting.refuse(whatDiffersIn: device) }
        if waiting == nil {
            try WaitingImages.refuseReplaced(device.image)
            if !device.readOnly { try WaitingImages.refuseChange(of: device.image) }
        }
        // It may take the whole machine along: said before, not after.
        if let defect = KernelRelease.running?.ublkDefect { printError("warning: \(defect)") }
        if foreground {
            try serve(waiting)
            return
        }
        if let waiting {
            try waiting.recover(isSupervised: supervise)
            return
        }
        // What is wrong with the files is said first, as in the foreground: a mistyped name has nothing to do with the
        // driver.
        _ = try ImageChain.open(
            path: device.image, isReadOnly: true, caching: .buffered, locking: .none, policy: try device.backing.policy())
        // Without a driver, or the right to use it, there is no point in going further.
        _ = try UblkControlDevice()
        let server = try BackgroundServer.start(device.configuration(), isSupervised: supervise)
        do { try printOutput(server.path) } catch {
            server.abandon()
            throw error
        }
        try server.keep()
    }

    private func serve(_ waiting: WaitingDevice?) throws {
        // stdout is scripted: the path alone.
        LoggingSystem.bootstrap(PrintableLog.standardError)
        let log = Logger(label: "qed-ublk")
        let device = try device.fromRoot()
        let process = try ServerProcess()
        let configuration = try waiting?.configuration() ?? device.configuration()
        let server = Server(configuration, process: process, log: log)
        var failure: OutputError?
        let ending = try server.run { _, path in
            do throws(OutputError) { try printOutput(path) } catch { failure = error }
            ServiceNotification.ready("serving \(configuration.imagePath.printable) as \(path)")
            return failure == nil
        }
        if let failure { throw failure }
        if ending == .left { throw ExitCode(ExitStatus.left.rawValue) }
    }
}
