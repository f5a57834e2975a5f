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

            With --overlay it is the other way round, as with QEMU: the image's file stays where it is, with what the disk \
            holds now, and the device goes on in a new file. After a power cut it is yours to know which of both is the newer.

            Example: qed-ublk snapshot /dev/ublkb0 /srv/monday.qed
            Example: qed-ublk snapshot /dev/ublkb0 --overlay /srv/tuesday.qed

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @Argument(help: "The file to keep it in. Nothing may be there.", completion: .file(), transform: PathArgument.parse)
    var snapshot: String?

    @Option(
        help: ArgumentHelp(
            "Instead of that: keep it in the image's own file, and go on in a new one of this name.", valueName: "image"),
        completion: .file(), transform: PathArgument.parse)
    var overlay: String?

    @OptionGroup var freeze: FreezeOption
    @OptionGroup var output: OutputOption

    func validate() throws {
        guard (snapshot == nil) != (overlay == nil) else {
            throw ValidationError("give one name: the snapshot's, or with --overlay that of the image to go on with")
        }
    }

    func run() throws {
        let path = overlay ?? snapshot ?? ""
        let answer = try DeviceSnapshot.take(
            ofDeviceNamed: argument.device, at: path, isOverlay: overlay != nil, freezing: freeze.fsfreeze)
        switch output.format {
        case .human: try printOutput(answer["snapshot"]?.text ?? path)
        case .json: try printOutput(answer.indented())
        }
    }
}
