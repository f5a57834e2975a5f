import ArgumentParser
import DeviceServer
import ImageTools
import Platform
import QEDEngine
import QEDFormat

struct MeasureCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "measure",
        abstract: "Tell how much space a disk would take as an image or a raw file.",
        discussion: """
            For a file the required size is what 'qed-ublk convert' would write at most: clusters of zeros that are \
            not \
            known as holes still count.

            Example: qed-ublk measure -f raw disk.raw -O qed

            Exit status:
            \(ExitStatus.tableOfTool())
            """)

    @Argument(help: "The file to measure, unless --size is given.", completion: .file(), transform: PathArgument.parse)
    var file: String?

    @Option(help: ArgumentHelp("Measure an empty disk of this size.", valueName: "size"), transform: SizeArgument.parse)
    var size: UInt64?

    @Option(
        name: [.customShort("f"), .long], help: ArgumentHelp("What the file is: raw or qed. (default: qed)", valueName: "format"))
    var format: DiskFormat?

    @Option(
        name: [.customShort("O"), .long], help: ArgumentHelp("What it would become: raw or qed.", valueName: "format"))
    var outputFormat = DiskFormat.qed

    @OptionGroup var geometryOptions: GeometryOptions
    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions

    func validate() throws {
        guard (file == nil) != (size == nil) else { throw ValidationError("give either a file or --size") }
        guard file != nil || (format == nil && !sharing.forceShare && !backing.isGiven) else {
            throw ValidationError("--size is about no file: leave --format, --force-share and the options for backing files out")
        }
        guard !geometryOptions.isGiven || outputFormat == .qed else {
            throw ValidationError("a cluster or table size goes with -O qed")
        }
        try geometryOptions.refuseBacking()
    }

    func run() throws {
        let measurement = try measure()
        switch output.format {
        case .human:
            try printOutput(
                "required size: \(measurement.requiredBytes)\nfully allocated size: \(measurement.fullyAllocatedBytes)")
        case .json:
            let value: JSONValue = [
                "required": JSONValue(measurement.requiredBytes),
                "fully-allocated": JSONValue(measurement.fullyAllocatedBytes),
            ]
            try printOutput(value.indented())
        }
    }

    private func measure() throws -> Measurement {
        do {
            if let size {
                return outputFormat == .raw
                    ? Measurement(rawSizeBytes: size)
                    : try Measurement(qedSizeBytes: size, geometry: try geometryOptions.geometry())
            }
            let map = try DiskMap.open(
                path: file ?? "", format: format ?? .qed, sharing: sharing.forceShare, policy: try backing.policy())
            return outputFormat == .raw
                ? Measurement(rawSizeBytes: map.sizeBytes)
                : try Measurement(converting: map, to: try geometryOptions.geometry())
        } catch let error as QEDFormatError {
            throw GeometryError(error: error)
        }
    }
}
