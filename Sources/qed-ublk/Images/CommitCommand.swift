import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct CommitCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .failure: "an I/O error; run it again",
        .busy: "the overlay or its backing file is in use by another program",
        .usage: "wrong usage, or no backing file",
    ])

    static let configuration = CommandConfiguration(
        commandName: "commit",
        abstract: "Write what an overlay has into its backing file.",
        discussion: """
            The overlay is emptied when the backing file is durable, unless -d keeps it. A backing file that is too \
            small \
            grows. Any other overlay of the same backing file is worthless afterwards.

            Example: qed-ublk commit overlay.qed

            Exit status:
            \(statuses)
            """)

    @Argument(help: "The overlay.", transform: PathArgument.parse)
    var file: String

    @Flag(name: [.customShort("d"), .long], help: "Keep the overlay as it is.")
    var keep = false

    @OptionGroup var backing: BackingOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func run() throws {
        try ImageCommit(path: file, keepsOverlay: keep, policy: try backing.policy()).run(progress: progress.bar)
        try output.report("Image committed.", [.init("filename", .string(file))], quiet: progress.quiet)
    }
}
