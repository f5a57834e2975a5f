import ArgumentParser
import DeviceServer
import ImageTools
import NBDStorage
import Platform
import QEDChain
import QEDEngine
import QEDFormat

extension BackingFormat: ExpressibleByArgument {}

struct CreateCommand: ParsableCommand {
    private static let statuses = ExitStatus.tableOfTool([
        .unusableImage: "the backing file is not what it is said to be",
        .busy: "exists already, or is in use",
        .notFound: "directory or backing file not found",
        .usage: "wrong usage, or a geometry that cannot be",
    ])

    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Create an empty image, or an overlay over another one.",
        discussion: """
            Takes the options of 'qemu-img create' too. Overwrites nothing without --force, and an image in use never. \
            Sizes are in bytes, or have one of the suffixes K, M, G, T, P and E for powers of 1024, and are \
            rounded up to a multiple of 512.

            Example: qed-ublk create --backing base.raw --backing-format raw overlay.qed

            Exit status:
            \(statuses)
            """)

    @Argument(help: "The image to create.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Argument(
        help: "Size of the disk, such as 20G. May be left out for an overlay: the size of its backing file.",
        transform: SizeArgument.parse)
    var size: UInt64?

    @OptionGroup var geometryOptions: GeometryOptions

    @Option(name: [.customShort("f"), .long], help: "The image's format; only qed is supported.")
    var format = DiskFormat.qed

    @Option(
        name: [.customShort("b"), .long],
        help: ArgumentHelp(
            "Create an overlay over this file, which must not change from then on. A relative name starts at the "
                + "directory of the new image.", valueName: "file"),
        completion: .file(), transform: PathArgument.parse)
    var backing: String?

    @Option(
        name: [.customShort("F"), .long],
        help: ArgumentHelp("What the backing file is: raw or qed.", valueName: "format"))
    var backingFormat: BackingFormat?

    @Option(
        help: ArgumentHelp(
            """
            Create an overlay over a base elsewhere: nbd://HOST[:PORT]/EXPORT, nbds:// (TLS) or \
            nbd+unix:///EXPORT?socket=/PATH. Its server is asked for its size.
            """, valueName: "address"))
    var base: String?

    @OptionGroup var output: OutputOption

    @Flag(help: "Replace a file of that name, and create even an image that QEMU could not open.")
    var force = false

    @Flag(name: [.customShort("q"), .long], help: "Print nothing but errors and warnings.")
    var quiet = false

    private var backingFiles: Set<String> {
        Set([backing, base].compactMap { $0 } + geometryOptions.named.compactMap(\.backingFile))
    }
    private var backingFormats: Set<BackingFormat> {
        Set([backingFormat, base.map { _ in .raw }].compactMap { $0 } + geometryOptions.named.compactMap(\.backingFormat))
    }

    func validate() throws {
        guard format == .qed else { throw ValidationError("only QED images are created; 'truncate' makes a raw one") }
        if let base {
            guard NBDAddress.isMeant(by: base) else {
                throw ValidationError("--base takes the address of an NBD export; for a file say --backing")
            }
            do throws(NBDAddressError) { _ = try NBDAddress(base) } catch { throw ValidationError(error.description) }
        }
        guard backingFiles.count <= 1, backingFormats.count <= 1 else {
            throw ValidationError("the backing file or its format is given twice, and not as the same")
        }
        if !backingFiles.isEmpty, backingFormats.isEmpty {
            throw ValidationError("--backing needs --backing-format raw or --backing-format qed")
        }
        if backingFiles.isEmpty, !backingFormats.isEmpty {
            throw ValidationError("--backing-format needs --backing with the name of the backing file")
        }
    }

    func run() throws {
        let format = backingFormats.first
        var creation = ImageCreation(
            path: file, sizeBytes: size, geometry: try geometry(),
            backing: backingFiles.first.flatMap { name in format.map { .init(name: name, format: $0) } },
            allowsWhatQEMUCannotOpen: force)
        creation.replacesExisting = force
        let header = try creation.create()
        if let limitation = header.geometry.qemuLimitation {
            printError("warning: \(file): \(limitation)")
        }
        try output.report(
            nil,
            [.init("filename", .string(file)), .init("virtual-size", JSONValue(header.imageSizeBytes))], quiet: quiet)
    }

    private func geometry() throws(ImageCreationError) -> QEDGeometry {
        do throws(QEDFormatError) {
            return try geometryOptions.geometry()
        } catch {
            throw .cannotBeDescribed(path: file, error)
        }
    }
}
