import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import ImageTools
import Platform
import QEDChain
import QEDFormat
import SystemPackage

struct SnapshotsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "snapshots",
        abstract: "List what a device's image lies over: its snapshots, and its base.",
        discussion: """
            From the newest to the oldest: each file, with the disk's size as it has it (SIZE), when it was last written to \
            (WRITTEN, in UTC), which for a snapshot is when it was taken and brought to its end, and what its file takes on its \
            file system (HOLDS): what is in no other file of the list. The device's image itself comes first.

            Example: qed-ublk snapshots --json /dev/ublkb0 | jq -r '.[1].filename'

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var argument: DeviceArgument

    @OptionGroup var output: OutputOption

    func run() throws {
        try DeviceRequirements.check()
        let record = try DeviceRegistry().device(named: argument.device)
        let files = try record.chainDescription().members.map(Row.init)
        switch output.format {
        case .human: try printOutput(SnapshotsCommand.table(files))
        case .json: try printOutput(JSONValue.array(files.map(\.json)).indented())
        }
    }

    private struct Row {
        var path: String
        var format: String
        var sizeBytes: UInt64
        /// nil: it is elsewhere.
        var allocatedBytes: UInt64?
        /// nil where the file is gone by now.
        var written: String?

        init(_ member: ChainDescription.Member) {
            switch member {
            case .qed(let image):
                (path, format) = (image.path, "qed")
                (sizeBytes, allocatedBytes) = (image.header.imageSizeBytes, image.allocatedBytes)
            case .raw(let path, let sizeBytes, let allocatedBytes):
                (self.path, format) = (path, "raw")
                (self.sizeBytes, self.allocatedBytes) = (sizeBytes, allocatedBytes)
            }
            written = (try? Stat(FilePath(path))).flatMap { TimeText.utc($0.st_mtim.tv_sec) }
        }

        var json: JSONValue {
            .object([
                .init("filename", .string(path)), .init("format", .string(format)), .init("virtual-size", JSONValue(sizeBytes)),
                .init("actual-size", allocatedBytes.map { JSONValue($0) } ?? .null),
                .init("written", written.map { .string($0) } ?? .null),
            ])
        }

        var cells: [String] {
            [SizeText.short(sizeBytes), allocatedBytes.map(SizeText.short) ?? "?", written ?? "?", path.printable]
        }
    }

    private static func table(_ files: [Row]) -> String {
        TextTable.lines([["SIZE", "HOLDS", "WRITTEN", "FILE"]] + files.map(\.cells))
    }
}

extension DeviceRecord {
    /// What a device's image, and the files behind it, say about themselves. The server of a base elsewhere is not asked: it may
    /// be away, or far.
    func chainDescription() throws -> ChainDescription {
        var policy = try BackingChoice(arguments: backingArguments).policy()
        (policy.baseOpening, policy.knownBase) = (.leftOut, base)
        return try ChainDescription(reading: imagePath, policy: policy)
    }
}
