import ArgumentParser
import QEDEngine
import QEDFormat

extension BackingFormat: ExpressibleByArgument {}

struct CreateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Create an empty image, or an overlay over another one.",
        discussion: """
            Never overwrites anything. Sizes are in bytes, or have one of the suffixes K, M, G, T, P and E for \
            powers of 1024, and are rounded up to a multiple of 512.
            """)

    @Argument(help: "The image to create.", transform: PathArgument.parse)
    var file: String

    @Argument(
        help: "Size of the disk, such as 20G. May be left out for an overlay: the size of its backing file.",
        transform: SizeArgument.parse)
    var size: UInt64?

    @Option(
        help: ArgumentHelp("Size of a cluster, a power of two from 4K to 64M. (default: 64K)", valueName: "size"),
        transform: SizeArgument.parse)
    var clusterSize: UInt64 = QEDGeometry.standard.clusterSizeBytes

    @Option(help: ArgumentHelp("Clusters per table: 2, 4, 8 or 16, or 1 with --force.", valueName: "clusters"))
    var tableSize: UInt64 = QEDGeometry.standard.tableSizeClusters

    @Option(
        help: ArgumentHelp(
            "Create an overlay over this file, which must not change from then on. A relative name starts at the "
                + "directory of the new image.", valueName: "file"),
        transform: PathArgument.parse)
    var backing: String?

    @Option(help: ArgumentHelp("What the backing file is: raw or qed.", valueName: "format"))
    var backingFormat: BackingFormat?

    @Flag(help: "Create even an image that QEMU could not open.")
    var force = false

    func validate() throws {
        if backing != nil, backingFormat == nil {
            throw ValidationError("--backing needs --backing-format raw or --backing-format qed")
        }
        if backing == nil, backingFormat != nil {
            throw ValidationError("--backing-format needs --backing with the name of the backing file")
        }
    }

    func run() throws {
        let creation = ImageCreation(
            path: file, sizeBytes: size, geometry: try geometry(),
            backing: backing.flatMap { name in backingFormat.map { .init(name: name, format: $0) } },
            allowsWhatQEMUCannotOpen: force)
        let header = try creation.create()
        if let limitation = header.geometry.qemuLimitation {
            printError("warning: \(file): \(limitation)")
        }
    }

    private func geometry() throws(ImageCreationError) -> QEDGeometry {
        do throws(QEDFormatError) {
            return try QEDGeometry(clusterSizeBytes: clusterSize, tableSizeClusters: tableSize)
        } catch {
            throw .cannotBeDescribed(path: file, error)
        }
    }
}
