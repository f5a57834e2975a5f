import ArgumentParser
import DeviceServer
import ImageTools
import Platform
import QEDChain
import QEDEngine

struct RebaseCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "rebase",
        abstract: "Give an overlay another backing file.",
        discussion: """
            What the overlay would read differently from the new backing file is copied into it first, so the disk \
            keeps \
            its contents. With -u only the name is changed: for a backing file that was moved, or for the new address of a base \
            elsewhere, as 'create --base' takes it. -b '' makes an image without backing file, as 'qed-ublk flatten' does.

            Example: qed-ublk rebase -b new-base.qed -F qed overlay.qed

            Exit status:
            \(ExitStatus.tableOfTool([.failure: "an I/O error; run it again", .busy: "a file is in use by another program"]))
            """)

    @Argument(help: "The overlay.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp("The new backing file, from the directory of the overlay; '' for none.", valueName: "file"))
    var backing: String

    @Option(
        name: [.customShort("F"), .long],
        help: ArgumentHelp("What the new backing file is: raw or qed.", valueName: "format"))
    var backingFormat: BackingFormat?

    @Flag(name: [.customShort("u"), .long], help: "Change the name only. The disk's contents change with it.")
    var unsafe = false

    @OptionGroup var backingOptions: BackingOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var progress: ProgressOptions

    func validate() throws {
        guard !backing.isEmpty || backingFormat == nil else {
            throw ValidationError("without a backing file there is no --backing-format")
        }
        guard backing.isEmpty || backingFormat != nil else {
            throw ValidationError("--backing needs --backing-format raw or --backing-format qed")
        }
        if !backing.isEmpty { _ = try PathArgument.parse(backing) }
    }

    func run() throws {
        let new = backing.isEmpty ? nil : backingFormat.map { ImageCreation.Backing(name: backing, format: $0) }
        try ImageRebase(path: file, backing: new, isUnsafe: unsafe, policy: try backingOptions.policy())
            .run(progress: progress.bar)
        try output.report(
            nil, [.init("filename", .string(file)), .init("backing-filename", .string(backing))], quiet: progress.quiet)
    }
}
