import ArgumentParser
import DeviceServer
import Platform

struct ForkCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "fork",
        abstract: "Make a second disk of what a device holds at this moment, while it works.",
        discussion: """
            Takes a snapshot, as 'snapshot' does, and makes an overlay over it, which 'add' gives a device of its own. Both \
            disks begin with the same content, and share what neither of them changes. Returns when both files survive a \
            power cut.

            Example: qed-ublk add $(qed-ublk fork 0 /srv/base.qed /srv/second.qed)

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @Argument(help: "The file to keep the snapshot in. Nothing may be there.", completion: .file(), transform: PathArgument.parse)
    var snapshot: String

    @Argument(help: "The overlay to make. Nothing may be there.", completion: .file(), transform: PathArgument.parse)
    var clone: String

    @OptionGroup var freeze: FreezeOption
    @OptionGroup var output: OutputOption

    func run() throws {
        let outcome = try DeviceFork.take(ofDeviceNamed: argument.device, at: snapshot, cloneAt: clone, freezing: freeze.fsfreeze)
        switch output.format {
        case .human: try printOutput(outcome.clone)
        case .json:
            try printOutput(
                JSONValue.object([
                    .init("snapshot", .string(outcome.snapshot)), .init("clone", .string(outcome.clone)),
                    .init("microseconds", outcome.waitMicroseconds),
                ]).indented())
        }
    }
}
