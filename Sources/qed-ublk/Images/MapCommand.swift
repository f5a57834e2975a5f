import ArgumentParser
import DeviceServer
import ImageTools
import Platform

struct MapCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "map",
        abstract: "Show which file of the chain has which part of the disk.",
        discussion: """
            Without --output json only ranges with data are listed, with their place in their file. Depth 0 is the \
            image \
            itself, 1 its backing file, and so on.

            Example: qed-ublk map --output json overlay.qed

            Exit status:
            \(ExitStatus.tableOfTool())
            """)

    @Argument(help: "The image.", transform: PathArgument.parse)
    var file: String

    @Option(name: [.customShort("f"), .long], help: ArgumentHelp("What the file is: raw or qed.", valueName: "format"))
    var format = DiskFormat.qed

    @Option(name: [.customShort("s"), .long], help: "Where to begin.", transform: SizeArgument.parse)
    var startOffset: UInt64 = 0

    @Option(name: [.customShort("l"), .long], help: "How much to map.", transform: SizeArgument.parse)
    var maxLength: UInt64?

    @OptionGroup var output: OutputOption
    @OptionGroup var sharing: SharingOption
    @OptionGroup var backing: BackingOptions

    func run() throws {
        let map = try DiskMap.open(
            path: file, format: format, sharing: sharing.forceShare, policy: try backing.policy())
        guard startOffset <= map.sizeBytes else {
            throw ImageToolError.refused(path: file, reason: "ends before offset \(startOffset)")
        }
        let end = startOffset + min(maxLength ?? .max, map.sizeBytes - startOffset)
        var lines = OutputLines()
        switch output.format {
        case .human:
            lines.add(MapCommand.row("Offset", "Length", "Mapped to", "File"))
            try map.forEachExtent(in: startOffset..<end) { extent throws(ImageToolError) in
                guard extent.kind == .data, let fileOffset = extent.fileOffset else { return }
                lines.add(
                    MapCommand.row(
                        MapCommand.hex(extent.start), MapCommand.hex(extent.length), MapCommand.hex(fileOffset),
                        map.paths[extent.depth].printable))
            }
        case .json:
            var separator = "["
            try map.forEachExtent(in: startOffset..<end) { extent throws(ImageToolError) in
                lines.add(separator + MapCommand.json(extent), end: "")
                separator = ",\n"
            }
            lines.add(separator == "[" ? "[]" : "]")
        }
        try lines.write()
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
