import ArgumentParser
import DeviceServer
import Platform

struct SnapshotCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshot",
        abstract: "Keep what a device holds at this moment, while it works.",
        discussion: """
            The image's file gets the new name, with what the disk holds at this moment, and is never written to again; the \
            image's own name leads to a new overlay over it, on which the disk goes on. Nothing has to be flushed for that: \
            requests wait for those that are under way, and no longer. Returns when the snapshot survives a power cut.

            The name must be on the image's file system. A file system on the disk is kept as after a power cut, which it \
            mends when it is mounted; with --fsfreeze one that is clean.

            Example: qed-ublk snapshot /dev/ublkb0 /srv/monday.qed

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @Argument(help: "The file to keep it in. Nothing may be there.", transform: PathArgument.parse)
    var snapshot: String

    @OptionGroup var freeze: FreezeOption
    @OptionGroup var output: OutputOption

    func run() throws {
        let answer = try DeviceSnapshot.take(ofDeviceNamed: argument.device, at: snapshot, freezing: freeze.fsfreeze)
        switch output.format {
        case .human: try printOutput(answer["snapshot"]?.text ?? snapshot)
        case .json: try printOutput(answer.indented())
        }
    }
}
