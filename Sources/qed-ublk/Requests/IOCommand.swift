import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct IOCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .success: "done, and every pattern matched",
        .failure: "an I/O error, or a pattern that did not match",
        .usage: "wrong usage; nothing was performed",
    ])

    static let configuration = CommandConfiguration(
        commandName: "io",
        abstract: "Read, write and verify parts of a disk, by commands like those of qemu-io.",
        discussion: """
            Commands are performed in order; each waits for the one before it. What was written is durable when the \
            program ends, or after a flush. An I/O error ends it, a pattern that does not match does not.

            \(DiskScript.summary)

            Example: qed-ublk io disk.qed 'write -P 0xab 64k 4k' 'read -P 0xab 64k 4k'

            Exit status:
            \(statuses)
            """)

    @Argument(help: "The disk.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Argument(help: "What to do.", transform: DiskScript.parse)
    var words: [DiskScript] = []

    @Option(
        name: [.customShort("c"), .long],
        help: ArgumentHelp("The same, as with qemu-io; can be given several times.", valueName: "command"),
        transform: DiskScript.parse)
    var command: [DiskScript] = []

    @Option(name: [.customShort("f"), .long], help: ArgumentHelp("What the file is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions

    @Flag(name: [.customShort("q"), .long], help: "Print nothing but errors and what was asked for.")
    var quiet = false

    private var commands: [DiskScript] { words + command }

    func validate() throws {
        guard words.isEmpty || command.isEmpty else {
            throw ValidationError("give all commands with -c, or none: their order would not be clear")
        }
        guard !commands.isEmpty else { throw ValidationError("a command is needed, such as 'read 0 4k'") }
        guard !sharing.forceShare || !commands.contains(where: \.changesTheDisk) else {
            throw ValidationError("--force-share is for reading only")
        }
    }

    func run() throws {
        let disk = try Disk(
            path: file, format: format, isReadOnly: !commands.contains { $0.changesTheDisk },
            sharing: sharing.forceShare, policy: try backing.policy())
        var player = DiskScriptPlayer(disk)
        try player.check(commands)
        var steps: [DiskScriptPlayer.Step] = []
        do {
            for command in commands {
                let step = try player.perform(command)
                steps.append(step)
                if output.format == .human, !quiet || step.isAnswer { try printOutput(step.text) }
            }
        } catch {
            // What was done before the failure is kept.
            try? disk.close()
            throw error
        }
        try disk.close()
        if output.format == .json { try printOutput(JSONValue.array(steps.map(\.json)).indented()) }
        if steps.contains(where: { $0.mismatch != nil }) { throw ExitCode(ExitStatus.failure.rawValue) }
    }
}
