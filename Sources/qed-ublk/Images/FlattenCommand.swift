import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct FlattenCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .success: "done, or there was no backing file",
        .failure: "an I/O error, or of a device: cancelled, or a snapshot was taken meanwhile; run it again",
        .busy: "a file is in use by another program",
    ])

    static let configuration = CommandConfiguration(
        commandName: "flatten",
        abstract: "Make an overlay, or a device's image while it works, one that needs no backing file.",
        discussion: """
            Everything that the overlay takes from its backing files is copied into it; then it forgets them. The \
            disk's \
            contents stay.

            Of a device (/dev/ublkb0) the image that it serves is the overlay. The device works meanwhile, and reads the same, \
            whatever happens; where this command is ended the copy goes on. The files beneath stay, and snapshots among them \
            are as they were.

            Example: qed-ublk flatten -p overlay.qed
            Example: qed-ublk flatten /dev/ublkb0

            Exit status:
            \(statuses)
            """)

    @Argument(help: "The overlay, or a device: /dev/ublkb0, ublkb0, 0.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @OptionGroup var change: LiveChangeOptions
    @OptionGroup var backingOptions: BackingOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    private var isOfDevice: Bool { DeviceReference(file).isDevice }

    func validate() throws {
        try change.refuse(beside: progress.progress)
        if isOfDevice {
            try backingOptions.refuseOfDevice()
        } else if change.isGiven {
            throw ValidationError("--pause, --resume and --cancel are about a device: /dev/ublkb0")
        }
    }

    func run() throws {
        if isOfDevice { return try runOnDevice() }
        try ImageRebase(path: file, backing: nil, policy: try backingOptions.policy()).run(progress: progress.bar)
        try output.report(nil, [.init("filename", .string(file))], quiet: progress.quiet)
    }

    private func runOnDevice() throws {
        if let change = change.change { return try DeviceCommit.change(deviceNamed: file, change) }
        let answer = try DeviceFlatten.run(deviceNamed: file, progress: progress.bar)
        if output.format == .json { return try printOutput(answer.indented()) }
        guard !progress.quiet else { return }
        let image = answer["image"]?.text ?? ""
        let forgotten = PathList(answer, "forgotten")
        if forgotten.isEmpty { return try printOutput("\(image): has no backing file.") }
        try printOutput("\(image): has what these have, and needs them no more: \(forgotten.text)")
    }
}
