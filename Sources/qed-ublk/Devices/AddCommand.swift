import ArgumentParser
import DeviceServer
import Logging
import Ublk

struct AddCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add",
        abstract: "Make a block device of an image.",
        discussion: """
            Prints the device's path, and nothing else, once the device is usable. A server process for it stays in the \
            background until 'qed-ublk del'. Where anything fails nothing is left behind. Needs root, and a kernel with \
            ublk (\(KernelRelease.oldest) or later), whose module it has loaded.

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
        let addition = DeviceAddition(imagePath: device.image, try device.requested(), warn: printError)
        guard foreground else {
            try addition.runInBackground(isSupervised: supervise, announce: printOutput)
            return
        }
        // stdout is scripted: the path alone.
        LoggingSystem.bootstrap(PrintableLog.standardError)
        let ending = try addition.runInForeground(log: Logger(label: "qed-ublk"), announce: printOutput)
        if ending == .left { throw ExitCode(ExitStatus.left.rawValue) }
    }
}
