import ArgumentParser
import QEDChain
import QEDEngine
import QEDFormat

/// The geometry of a new image: with options of their own, or with qemu-img's `-o name=value,...`, which can name a backing
/// file too.
struct GeometryOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp("Size of a cluster, a power of two from 4K to 64M. (default: 64K)", valueName: "size"),
        transform: SizeArgument.parse)
    var clusterSize: UInt64?

    @Option(
        help: ArgumentHelp("Clusters per table: 2, 4, 8 or 16, or 1 with --force. (default: 4)", valueName: "clusters"))
    var tableSize: UInt64?

    @Option(
        name: [.customShort("o"), .customLong("options")],
        help: ArgumentHelp(
            "The same as in qemu-img: cluster_size=64K,table_size=4; for a new overlay also backing_file and backing_fmt.",
            valueName: "name=value,..."),
        transform: GeometryOptions.parse)
    var named: [Named] = []

    /// What one -o says.
    struct Named: Equatable {
        var clusterSize: UInt64?
        var tableSize: UInt64?
        var backingFile: String?
        var backingFormat: BackingFormat?
    }

    /// - Throws: what is wrong with `text`, as the end of a sentence about it.
    static func parse(_ text: String) throws -> Named {
        var named = Named()
        for option in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = option.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { throw GeometryOptionError.notAnOption(String(option)) }
            let value = String(parts[1])
            switch parts[0] {
            case "cluster_size": named.clusterSize = try SizeArgument.parse(value)
            case "table_size": named.tableSize = try SizeArgument.parse(value)
            case "backing_file": named.backingFile = try PathArgument.parse(value)
            case "backing_fmt":
                guard let format = BackingFormat(rawValue: value) else { throw GeometryOptionError.notAFormat(value) }
                named.backingFormat = format
            default: throw GeometryOptionError.unknown(String(parts[0]))
            }
        }
        return named
    }

    func validate() throws {
        guard clusterSizes.count <= 1, tableSizes.count <= 1 else {
            throw ValidationError("the size of a cluster or of a table is given twice, and not as the same")
        }
    }

    /// Where no overlay is made.
    func refuseBacking() throws {
        guard named.allSatisfy({ $0.backingFile == nil && $0.backingFormat == nil }) else {
            throw ValidationError("backing_file and backing_fmt go with 'create'")
        }
    }

    var isGiven: Bool { clusterSize != nil || tableSize != nil || !named.isEmpty }

    private var clusterSizes: Set<UInt64> { Set([clusterSize].compactMap { $0 } + named.compactMap(\.clusterSize)) }
    private var tableSizes: Set<UInt64> { Set([tableSize].compactMap { $0 } + named.compactMap(\.tableSize)) }

    func geometry() throws(QEDFormatError) -> QEDGeometry {
        try QEDGeometry(
            clusterSizeBytes: clusterSizes.first ?? QEDGeometry.standard.clusterSizeBytes,
            tableSizeClusters: tableSizes.first ?? QEDGeometry.standard.tableSizeClusters)
    }
}

enum GeometryOptionError: Error, CustomStringConvertible {
    case notAnOption(String)
    case unknown(String)
    case notAFormat(String)

    var description: String {
        switch self {
        case .notAnOption(let text): "'\(text)' is not of the form name=value"
        case .unknown(let name): "there is no option '\(name)'; there are cluster_size, table_size, backing_file and backing_fmt"
        case .notAFormat(let name): "'\(name)' is no format of a backing file; give raw or qed"
        }
    }
}

/// A geometry that no image can have.
struct GeometryError: ReportableError {
    let error: QEDFormatError
    var exitStatus: ExitStatus { .usage }
    var description: String { "cannot have such an image: \(error.fault)" }
}
