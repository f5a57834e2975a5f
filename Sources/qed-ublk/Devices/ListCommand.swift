import ArgumentParser
import DeviceServer
import Platform
import Ublk

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the devices that qed-ublk serves.",
        discussion: """
            As JSON it is an array, empty when there is no device. A device whose state is 'waiting' has lost its server, and \
            goes on when it gets another one ('qed-ublk recover'). One that is 'dead' cannot; 'qed-ublk del' removes it. One \
            that is 'failed' only reads, since a sync of its image has failed; the server's log says what to do. An 'orphan' \
            has no server, and nobody knows its image: its server died before it could note that, the notes in /run were \
            removed, or it is another program's; 'qed-ublk del' with its number removes it.

            With --verbose also the server's process, the device's block size, how the server accesses the image's file (ACCESS: \
            direct is past the page cache), whether data goes without copies (ZC), the largest request, and memory: the I/O \
            buffers (queues x depth x the largest request), what the server has in memory with them (RESIDENT), and what of \
            that cannot be swapped out (LOCKED; less where a limit forbids it, see the server's log).

            Example: qed-ublk list --json | jq -r '.[].device'

            Exit status:
            \(ExitStatus.table)
            """)

    @Flag(name: [.customShort("v"), .long], help: "Show the server's process, its accesses and its memory too.")
    var verbose = false

    @OptionGroup var output: OutputOption

    func run() throws {
        let devices = try KnownDevices.all()
        switch output.format {
        case .human: try printOutput(ListCommand.table(devices, isVerbose: verbose))
        case .json: try printOutput(JSONValue.array(devices.map(\.json)).indented())
        }
    }

    private static func table(_ devices: [KnownDevice], isVerbose: Bool) -> String {
        let details = isVerbose ? ["PID", "BLOCK", "ACCESS", "ZC", "REQUEST", "BUFFERS", "RESIDENT", "LOCKED"] : []
        let rows =
            [["DEVICE", "STATE", "SIZE", "QUEUES", "DEPTH", "RO"] + details + ["IMAGE"]]
            + devices.map { $0.row + (isVerbose ? $0.details : []) + [$0.record?.imagePath.printable ?? "?"] }
        return TextTable.lines(rows)
    }
}

extension KnownDevice {
    fileprivate var row: [String] {
        let size = sizeBytes.map(SizeText.short) ?? "?"
        let queues = info.map { "\($0.queueCount)" } ?? "?"
        let depth = info.map { "\($0.queueDepth)" } ?? "?"
        return [path, state, size, queues, depth, record.map { $0.isReadOnly ? "1" : "0" } ?? "?"]
    }

    fileprivate var details: [String] {
        let memory = memory
        return [
            server.map { "\($0)" } ?? "-", blockSizeBytes.map { "\($0)" } ?? "?",
            record?.isDirect.map { $0 ? "direct" : "buffered" } ?? "?", info.map { $0.isZeroCopy ? "1" : "0" } ?? "?",
            info.map { SizeText.short(UInt64($0.maxIOSizeBytes)) } ?? "?",
            info.map { SizeText.short(UInt64($0.bufferBytes)) } ?? "?",
            memory.map { SizeText.short($0.residentBytes) } ?? "?", memory.map { SizeText.short($0.lockedBytes) } ?? "?",
        ]
    }

    fileprivate var json: JSONValue {
        let size: JSONValue = if let sizeBytes { JSONValue(sizeBytes) } else { .null }
        let queues: JSONValue = if let info { JSONValue(info.queueCount) } else { .null }
        let depth: JSONValue = if let info { JSONValue(info.queueDepth) } else { .null }
        let blockSize: JSONValue = if let blockSizeBytes { JSONValue(blockSizeBytes) } else { .null }
        let memory = memory
        func bytes(_ value: UInt64?) -> JSONValue { value.map { JSONValue($0) } ?? .null }
        return .object([
            .init("device", .string(path)), .init("id", JSONValue(id)), .init("state", .string(state)),
            .init("size", size), .init("queues", queues), .init("depth", depth),
            .init("read-only", record.map { .bool($0.isReadOnly) } ?? .null),
            .init("zero-copy", info.map { .bool($0.isZeroCopy) } ?? .null), .init("pid", server.map { JSONValue($0) } ?? .null),
            .init("image", record.map { .string($0.imagePath) } ?? .null), .init("block-size", blockSize),
            .init("direct-io", record?.isDirect.map { .bool($0) } ?? .null),
            .init("max-io-size", info.map { JSONValue($0.maxIOSizeBytes) } ?? .null),
            .init(
                "memory",
                .object([
                    .init("io-buffers", bytes((info?.bufferBytes).map(UInt64.init))),
                    .init("resident", bytes(memory?.residentBytes)), .init("locked", bytes(memory?.lockedBytes)),
                ])),
        ])
    }
}
