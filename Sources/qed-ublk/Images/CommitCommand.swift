import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct CommitCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .failure: "an I/O error; run it again",
        .busy: "the overlay or its backing file is in use by another program, or another image needs what would change",
        .usage: "wrong usage, or no backing file",
    ])

    static let configuration = CommandConfiguration(
        commandName: "commit",
        abstract: "Write what an overlay has into its backing file; of a device, merge snapshots while it works.",
        discussion: """
            The overlay is emptied when the backing file is durable, unless -d keeps it. A backing file that is too \
            small \
            grows. Any other overlay of the same backing file is worthless afterwards.

            Of a device (/dev/ublkb0) snapshots that its image lies over become one file: the lowest in the directory of the \
            newest one, or --into, gets what those above it have, and they are removed. The device works meanwhile, and reads \
            the same, whatever happens; where this command is ended the merge goes on. What another image needs is refused.

            Example: qed-ublk commit overlay.qed
            Example: qed-ublk commit --keep 3 /dev/ublkb0

            Exit status:
            \(statuses)
            """)

    @Argument(help: "The overlay, or a device: /dev/ublkb0, ublkb0, 0.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Flag(name: [.customShort("d"), .long], help: "Keep the overlay as it is.")
    var keepOverlay = false

    @Option(help: ArgumentHelp("Of a device: so many of the newest snapshots stay.", valueName: "count"))
    var keep: Int?

    @Option(
        help: ArgumentHelp("Of a device: the snapshot that gets what those above it have.", valueName: "image"),
        completion: SnapshotCompletion.kind, transform: PathArgument.parse)
    var into: String?

    @OptionGroup var change: LiveChangeOptions
    @OptionGroup var backing: BackingOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    private var isOfDevice: Bool { DeviceReference(file).isDevice }

    func validate() throws {
        if let keep, !ControlRequest.keepRange.contains(keep) {
            throw ValidationError("--keep takes 0 to \(ControlRequest.keepRange.upperBound)")
        }
        try change.refuse(beside: keep != nil || into != nil || progress.progress)
        if isOfDevice {
            guard !keepOverlay else { throw ValidationError("--keep-overlay is about an overlay that nobody serves") }
            try backing.refuseOfDevice()
        } else if keep != nil || into != nil || change.isGiven {
            throw ValidationError("--keep, --into, --pause, --resume and --cancel are about a device: /dev/ublkb0")
        }
    }

    func run() throws {
        if isOfDevice { return try runOnDevice() }
        try ImageCommit(path: file, keepsOverlay: keepOverlay, policy: try backing.policy()).run(progress: progress.bar)
        try output.report("Image committed.", [.init("filename", .string(file))], quiet: progress.quiet)
    }

    private func runOnDevice() throws {
        if let change = change.change { return try DeviceCommit.change(deviceNamed: file, change) }
        let answer = try DeviceCommit.run(deviceNamed: file, keeping: keep ?? 0, into: into, progress: progress.bar)
        if output.format == .json { return try printOutput(answer.indented()) }
        guard !progress.quiet else { return }
        let into = answer["into"]?.text ?? ""
        let removed = PathList(answer, "removed")
        if removed.isEmpty { return try printOutput("\(into): nothing above it to merge.") }
        try printOutput("\(into): has what these had, which are gone: \(removed.text)")
    }
}
