import ArgumentParser
import QEDFormat

/// The geometry of a new image: with options of their own, or with qemu-img's `-o name=value,...`.
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
        help: ArgumentHelp("The same as in qemu-img: cluster_size=64K,table_size=4", valueName: "name=value,..."),
        transform: GeometryOptions.parse)
    var named: [Named] = []

    struct Named: Equatable {
        var clusterSize: UInt64?
        var tableSize: UInt64?
    }

    /// - Throws: what is wrong with `text`, as the end of a sentence about it.
    static func parse(_ text: String) throws -> Named {
        var named = Named()
        for option in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = option.split(separator: "=", maxSplits: 1)
            guard parts.count == 2 else { throw GeometryOptionError.notAnOption(String(option)) }
            let value = try SizeArgument.parse(String(parts[1]))
            switch parts[0] {
            case "cluster_size": named.clusterSize = value
            case "table_size": named.tableSize = value
            default: throw GeometryOptionError.unknown(String(parts[0]))
            }
        }
        return named
    }

    var isGiven: Bool { clusterSize != nil || tableSize != nil || !named.isEmpty }

    func geometry() throws(QEDFormatError) -> QEDGeometry {
        let named = self.named.last ?? Named()
        return try QEDGeometry(
            clusterSizeBytes: clusterSize ?? named.clusterSize ?? QEDGeometry.standard.clusterSizeBytes,
            tableSizeClusters: tableSize ?? named.tableSize ?? QEDGeometry.standard.tableSizeClusters)
    }
}

enum GeometryOptionError: Error, CustomStringConvertible {
    case notAnOption(String)
    case unknown(String)

    var description: String {
        switch self {
        case .notAnOption(let text): "'\(text)' is not of the form name=value"
        case .unknown(let name): "there is no option '\(name)'; there are cluster_size and table_size"
        }
    }
}

/// A geometry that no image can have.
struct GeometryError: ReportableError {
    let error: QEDFormatError
    var exitStatus: ExitStatus { .usage }
    var description: String { "cannot have such an image: \(error.fault)" }
}
