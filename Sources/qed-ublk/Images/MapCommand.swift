import ArgumentParser
import BlockStorage
import DeviceServer
import ImageTools
import Platform
import QEDChain

struct MapCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "map",
        abstract: "Show which file of the chain has which part of the disk.",
        discussion: """
            Without --output json only ranges with data are listed, with their place in their file. Depth 0 is the \
            image \
            itself, 1 its backing file, and so on.

            With --since only what has changed: the ranges that a file above the given one decides, those of zeros included \
            (without a place). All others are as they are in that file's disk. What has been written with the same content \
            counts as changed.

            Example: qed-ublk map --output json --since monday.qed tuesday.qed

            Exit status:
            \(ExitStatus.tableOfTool())
            """)

    @Argument(help: "The image.", completion: .file(), transform: PathArgument.parse)
    var file: String

    @Option(name: [.customShort("f"), .long], help: ArgumentHelp("What the file is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @Option(name: [.customShort("s"), .long], help: "Where to begin.", transform: SizeArgument.parse)
    var startOffset: UInt64 = 0

    @Option(name: [.customShort("l"), .long], help: "How much to map.", transform: SizeArgument.parse)
    var maxLength: UInt64?

    @Option(
        help: ArgumentHelp("Only what has changed since a snapshot that the image lies over.", valueName: "image"),
        completion: SnapshotCompletion.kind, transform: PathArgument.parse)
    var since: String?

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions

    func validate() throws {
        guard since == nil || format == .qed else {
            throw ValidationError("a raw file lies over nothing: leave --since out")
        }
    }

    func run() throws {
        let map = try DiskMap.open(
            path: file, format: format, sharing: sharing.forceShare, policy: try backing.policy())
        guard startOffset <= map.sizeBytes else {
            throw ImageToolError.refused(path: file, reason: "ends before offset \(startOffset)")
        }
        let depthLimit = try since.map { try MapCommand.depth(of: $0, in: map) } ?? .max
        let end = startOffset + min(maxLength ?? .max, map.sizeBytes - startOffset)
        var lines = OutputLines()
        switch output.format {
        case .human:
            lines.add(MapCommand.row("Offset", "Length", "Mapped to", "File"))
            try map.forEachExtent(in: startOffset..<end) { extent throws(ImageToolError) in
                guard extent.depth < depthLimit, extent.kind == .data || since != nil else { return }
                let place = extent.kind == .data ? extent.fileOffset : nil
                lines.add(
                    MapCommand.row(
                        MapCommand.hex(extent.start), MapCommand.hex(extent.length), place.map(MapCommand.hex) ?? "-",
                        place == nil ? "zeros" : map.paths[extent.depth].printable))
            }
        case .json:
            var separator = "["
            try map.forEachExtent(in: startOffset..<end) { extent throws(ImageToolError) in
                guard extent.depth < depthLimit else { return }
                lines.add(separator + MapCommand.json(extent), end: "")
                separator = ",\n"
            }
            lines.add(separator == "[" ? "[]" : "]")
        }
        try lines.write()
    }

    private static func depth(of path: String, in map: DiskMap) throws -> Int {
        guard FileIdentity(ofFileAt: path) != nil else { throw ImageToolError.read(.file(.notFound(path: path))) }
        guard let depth = map.depth(ofFileAt: path) else {
            throw ImageToolError.refused(
                path: path,
                reason: "is none of the files that \(map.paths[0]) lies over; 'qed-ublk info --backing-chain' lists them")
        }
        return depth
    }

    private static func row(_ columns: String...) -> String {
        columns.dropLast().map { $0 + String(repeating: " ", count: max(16 - $0.count, 0)) }.joined()
            + (columns.last ?? "")
    }

    private static func hex(_ value: UInt64) -> String { value == 0 ? "0" : "0x" + String(value, radix: 16) }

    /// One line per extent, as qemu-img writes it.
    private static func json(_ extent: DiskExtent) -> String {
        let isData = extent.kind == .data
        var text = "{ \"start\": \(extent.start), \"length\": \(extent.length), \"depth\": \(extent.depth), "
        text += "\"present\": \(extent.kind != .unallocated), \"zero\": \(!isData), \"data\": \(isData)"
        if let fileOffset = extent.fileOffset { text += ", \"offset\": \(fileOffset)" }
        return text + "}"
    }
}

/// Output of many lines, written in large pieces and not before the end of each.
struct OutputLines {
    private var text = ""

    mutating func add(_ line: String, end: String = "\n") {
        text += line
        text += end
    }

    /// Writes what is there. The last line break is `printOutput`'s.
    func write() throws(OutputError) {
        try printOutput(text.hasSuffix("\n") ? String(text.dropLast()) : text)
    }
}
