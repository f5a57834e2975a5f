import ArgumentParser
import DeviceServer
import Glibc
import ImageTools
import Platform
import QEDEngine
import QEDFormat

struct ConvertCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .failure: "an I/O error, or with --verify a difference",
        .busy: "in use by another program, or the target exists",
        .notFound: "file, backing file or directory not found",
    ])

    static let configuration = CommandConfiguration(
        commandName: "convert",
        abstract: "Copy a disk into a new image or raw file.",
        discussion: """
            The copy has no backing file, and neither zeros nor unused clusters take space in it. It gets its name \
            when it is complete and durable; a failure or an interruption leaves nothing, and an existing file as it \
            was. Formats are never guessed: say -f raw for a raw source.

            With - as the source a raw disk comes through standard input, into a new image. So does whatever another \
            program can read. With - as the copy a raw disk goes through standard output, zeros included; a FIFO takes it too.

            Example: qed-ublk convert -p -f raw -O qed disk.raw disk.qed
                     zstd -dc disk.raw.zst | qed-ublk convert -f raw -O qed - disk.qed
                     qed-ublk convert disk.qed - | zstd -o disk.raw.zst
                     nbdcopy -- [ qemu-nbd -r -f qcow2 disk.qcow2 ] - |
                         qed-ublk convert -f raw -O qed - disk.qed

            Exit status:
            \(statuses)
            """)

    @Argument(help: "What to copy; - is standard input.", completion: .file(), transform: PathArgument.parse)
    var source: String

    @Argument(help: "The copy; - is standard output.", completion: .file(), transform: PathArgument.parse)
    var target: String

    @Option(
        name: [.customShort("f"), .long], help: ArgumentHelp("What the source is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @Option(name: [.customShort("O"), .long], help: ArgumentHelp("What the copy is: raw or qed.", valueName: "format"))
    var outputFormat = DiskFormat.raw

    @OptionGroup var geometryOptions: GeometryOptions

    @Flag(
        name: [.customShort("n"), .long], help: "Write into the target that exists: an image, raw file or block device."
    )
    var noCreate = false

    @Flag(help: "Replace the target if it exists, and make even an image that QEMU could not open.")
    var force = false

    @Flag(help: "Read the copy back and compare it.")
    var verify = false

    @Option(
        name: [.customShort("m"), .long], help: ArgumentHelp("Requests under way at once, 1 to 64.", valueName: "count")
    )
    var parallel = Disk.usualDepth

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions
    @OptionGroup var progress: ProgressOptions

    func validate() throws {
        guard (1...64).contains(parallel) else { throw ValidationError("--parallel must be between 1 and 64") }
        guard !force || !noCreate else {
            throw ValidationError("-n writes into the target that exists, and --force replaces it: they exclude each other")
        }
        try geometryOptions.refuseBacking()
        guard !geometryOptions.isGiven || (outputFormat == .qed && !noCreate) else {
            throw ValidationError("a cluster or table size goes with -O qed and a new file")
        }
        guard
            source != Conversion.standardStream
                || (format == .raw && outputFormat == .qed && !noCreate && !verify && !sharing.forceShare)
        else {
            throw ValidationError(
                "standard input is read once, as a raw disk, into a new image: use it with -f raw -O qed, without -n, "
                    + "--verify and --force-share")
        }
        let isStandardOutput = StreamTarget(target)?.isStandardOutput == true
        guard !isStandardOutput || output.format == .human else {
            throw ValidationError("standard output takes the disk and nothing else: leave --json out")
        }
        guard !isStandardOutput || (outputFormat == .raw && !noCreate && !verify && !force) else {
            throw ValidationError(
                "standard output takes a raw disk, once: use it with -O raw, without -n, --verify and --force")
        }
    }

    func run() throws {
        // A reader that has gone is an error with a status of its own.
        if StreamTarget(target) != nil { signal(SIGPIPE, SIG_IGN) }
        var conversion = Conversion(
            source: source, sourceFormat: format, target: target, targetFormat: outputFormat)
        do { conversion.geometry = try geometryOptions.geometry() } catch { throw GeometryError(error: error) }
        conversion.allowsWhatQEMUCannotOpen = force
        conversion.replaces = force
        conversion.keepsTarget = noCreate
        conversion.verifies = verify
        conversion.sharing = sharing.forceShare
        conversion.depth = parallel
        conversion.policy = try backing.policy()
        let sizeBytes = try conversion.run(progress: progress.bar)
        try output.report(
            nil,
            [
                .init("filename", .string(target)), .init("format", .string(outputFormat.rawValue)),
                .init("virtual-size", JSONValue(sizeBytes)), .init("verified", .bool(verify)),
            ], quiet: progress.quiet)
    }
}
