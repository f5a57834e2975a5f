import ArgumentParser
import DeviceServer
import Platform

struct RollbackCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rollback",
        abstract: "Put a device's disk back to what one of its snapshots has.",
        discussion: """
            What was written since the newest snapshot is gone: take another one first, to keep it. The device, its size and \
            its image's name stay; the image is a new overlay over the snapshot. Newer snapshots stay as files, and are not \
            beneath it any more.

            Nobody may have the disk mounted or open: whoever has something of it in memory would go on with what it does not \
            have any more. With --force that is theirs to know.

            Example: umount /mnt && qed-ublk rollback /dev/ublkb0 monday.qed

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @Argument(
        help: "The snapshot, or another file beneath the image.", completion: SnapshotCompletion.kind,
        transform: PathArgument.parse)
    var snapshot: String

    @Flag(help: "Even though the disk is in use.")
    var force = false

    @OptionGroup var output: OutputOption

    func run() throws {
        let answer = try DeviceRollback.run(deviceNamed: argument.device, to: snapshot, force: force)
        if output.format == .json { return try printOutput(answer.indented()) }
        try printOutput("\(answer["snapshot"]?.text ?? snapshot): the disk is as it was then.")
        let left = PathList(answer, "left")
        if !left.isEmpty { try printOutput("Not beneath it any more: \(left.text)") }
    }
}
