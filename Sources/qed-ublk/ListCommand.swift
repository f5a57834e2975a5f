import ArgumentParser
import DeviceServer
import Ublk

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the devices that qed-ublk serves.",
        discussion: """
            As JSON it is an array, empty when there is no device. A device whose state is 'waiting' has lost its server, and \
            goes on when it gets another one ('qed-ublk recover'). One that is 'dead' cannot; 'qed-ublk del' removes it.

            Example: qed-ublk list --json | jq -r '.[].device'

            Exit status:
            \(ExitStatus.table)
            """)

    @OptionGroup var output: OutputOption

    func run() throws {
        let devices = try KnownDevices.all()
        switch output.format {
        case .human: try printOutput(ListCommand.table(devices))
        case .json: try printOutput(JSONValue.array(devices.map(\.json)).indented())
        }
    }

    private static func table(_ devices: [KnownDevice]) -> String {
        let rows = [["DEVICE", "STATE", "SIZE", "QUEUES", "DEPTH", "RO", "IMAGE"]] + devices.map(\.row)
        let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
        return rows.map { row in
            var line = ""
            for (cell, width) in zip(row.dropLast(), widths) {
                line += cell + String(repeating: " ", count: width - cell.count + 2)
            }
            return line + (row.last ?? "")
        }.joined(separator: "\n")
    }
}

extension KnownDevice {
    fileprivate var row: [String] {
        let size = sizeBytes.map(SizeText.short) ?? "?"
        let queues = info.map { "\($0.queueCount)" } ?? "?"
        let depth = info.map { "\($0.queueDepth)" } ?? "?"
        return [path, state, size, queues, depth, record.isReadOnly ? "1" : "0", record.imagePath.printable]
    }

    fileprivate var json: JSONValue {
        let size: JSONValue = if let sizeBytes { JSONValue(sizeBytes) } else { .null }
        let queues: JSONValue = if let info { JSONValue(info.queueCount) } else { .null }
        let depth: JSONValue = if let info { JSONValue(info.queueDepth) } else { .null }
        return .object([
            .init("device", .string(path)), .init("id", JSONValue(record.deviceID)), .init("state", .string(state)),
            .init("size", size), .init("queues", queues), .init("depth", depth),
            .init("read-only", .bool(record.isReadOnly)),
            .init("zero-copy", info.map { .bool($0.isZeroCopy) } ?? .null), .init("pid", JSONValue(record.server.id)),
            .init("image", .string(record.imagePath)),
        ])
    }
}
