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

            When a server dies its device waits, and whoever uses it; a second process in the background gives it another \
            server at once. With --no-supervise nobody does but 'qed-ublk recover', or adding the image again, which goes on \
            where it was, with the device as it was made: an option that asks for something else is refused.

            Example: mkfs.ext4 $(qed-ublk add disk.qed)

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var device: DeviceOptions

    @Flag(name: [.customShort("f"), .long], help: "Do not go into the background; log to standard error; end with Ctrl-C.")
    var foreground = false

    @Flag(
        inversion: .prefixedNo,
        help: "Start another server whenever this one dies. As is done, but in the foreground and with --no-recovery.")
    var supervise: Bool?

    private var isSupervised: Bool { supervise ?? !(foreground || device.noRecovery) }

    func validate() throws {
        guard !(foreground && isSupervised) else {
            throw ValidationError("--supervise goes with a server in the background; in the foreground you are its supervisor")
        }
        guard !(device.noRecovery && isSupervised) else {
            throw ValidationError("--supervise needs a device that waits for its next server: leave out --no-recovery")
        }
    }

    func run() throws {
        let addition = DeviceAddition(imagePath: device.image, try device.requested(), warn: printError)
        guard foreground else {
            try addition.runInBackground(isSupervised: isSupervised, announce: printOutput)
            return
        }
        // stdout is scripted: the path alone.
        LoggingSystem.bootstrap(PrintableLog.standardError)
        let ending = try addition.runInForeground(log: Logger(label: "qed-ublk"), announce: printOutput)
        if ending == .left { throw ExitCode(ExitStatus.left.rawValue) }
    }
}
