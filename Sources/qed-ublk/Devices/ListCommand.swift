import ArgumentParser
import DeviceServer
import Platform
import Ublk

struct ListCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "List the devices that qed-ublk serves.",
        discussion: """
            As JSON it is an array, empty when there is no device. A device whose state is 'waiting' has lost its server, \
            and goes on when it gets another one ('qed-ublk recover'). One that is 'dead' cannot; 'qed-ublk del' removes it. \
            One that is 'leaving' goes when its last user has gone ('qed-ublk del --lazy'). One that is 'failed' only reads, \
            since a sync of its image has failed; the server's log says what to do. An 'orphan' has no server, and nobody \
            knows its image: its server died before it could note that, the notes in /run were removed, or it is another \
            program's; 'qed-ublk del' with its number removes it.

            With --verbose also the server's process, the device's block size, how the server accesses the image's file (ACCESS: \
            direct is past the page cache), whether data goes without copies (ZC), the largest request, and memory: the I/O \
            buffers (queues x depth x the largest request), what the server has in memory with them (RESIDENT), and what of \
            that cannot be swapped out (LOCKED; less where a limit forbids it, see the server's log). BASE is what the server \
            says of a base elsewhere ('create --base'): there, away (reads of it wait), or changed (they fail).

            Example: qed-ublk list --noheadings --columns device disk.qed

            Exit status:
            \(ExitStatus.table)
            """)

    @Argument(
        help: ArgumentHelp("Only these: /dev/ublkb0, or a link to it, ublkb0, 0, or an image's path.", valueName: "device"),
        completion: DeviceArgument.completion, transform: PathArgument.parse)
    var devices: [String] = []

    @Flag(name: [.customShort("v"), .long], help: "Show the server's process, its accesses and its memory too.")
    var verbose = false

    @Option(
        name: [.customShort("O"), .long],
        help: ArgumentHelp(
            "Which columns to show, and in which order: \(ListColumn.names), separated by commas.", valueName: "columns"),
        transform: ListColumn.parse)
    var columns: [ListColumn]?

    @Flag(name: [.customShort("n"), .long, .customLong("no-headings")], help: "Leave out the line of headings.")
    var noheadings = false

    @Flag(help: "Print what udev's rule is to know of one device, as KEY=value lines; none of one that is not ours.")
    var export = false

    @OptionGroup var output: OutputOption

    func validate() throws {
        if export {
            guard devices.count == 1 else { throw ValidationError("--export is of one device") }
            guard columns == nil, !verbose, !noheadings, output.format == .human else {
                throw ValidationError("--export says what is printed: leave out the other options")
            }
        }
        guard output.format == .json else {
            guard columns == nil || !verbose else { throw ValidationError("--columns says what is shown: leave out --verbose") }
            return
        }
        guard columns == nil, !noheadings else {
            throw ValidationError("as JSON there is all of it: leave out --columns and --noheadings")
        }
    }

    func run() throws {
        if export {
            let properties = try DeviceProperties.ofDevice(named: devices[0])
            if !properties.isEmpty { try printOutput(properties.map { "\($0.key)=\($0.value)" }.joined(separator: "\n")) }
            return
        }
        let all = try KnownDevices.all()
        let devices = try self.devices.isEmpty ? all : KnownDevices.named(self.devices, of: all)
        switch output.format {
        case .human:
            let columns = columns ?? ListColumn.allCases.filter { verbose || !$0.isDetail }
            let rows = devices.map { device in columns.map { $0.text(of: device) } }
            let headings = noheadings ? [] : [columns.map { $0.rawValue.uppercased() }]
            guard !(rows + headings).isEmpty else { return }
            try printOutput(TextTable.lines(headings + rows))
        case .json: try printOutput(JSONValue.array(devices.map(\.json)).indented())
        }
    }
}

/// What `list` can show of a device, in the order in which it does.
enum ListColumn: String, CaseIterable {
    case device, state, size, queues, depth, ro, pid, block, access, zc, request, buffers, resident, locked, base, name, symlink,
        image

    static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

    /// - Throws: `ValidationError`.
    static func parse(_ text: String) throws -> [ListColumn] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { name in
            guard let column = ListColumn(rawValue: name.lowercased()) else {
                throw ValidationError("there is no column '\(String(name).printable)'; there are \(names)")
            }
            return column
        }
    }

    /// Shown when more is asked for.
    var isDetail: Bool {
        switch self {
        case .device, .state, .size, .queues, .depth, .ro, .image: false
        case .name, .symlink, .pid, .block, .access, .zc, .request, .buffers, .resident, .locked, .base: true
        }
    }

    func text(of device: KnownDevice) -> String {
        switch self {
        case .device: device.path
        case .state: device.state
        case .size: device.sizeBytes.map(SizeText.short) ?? "?"
        case .queues: device.info.map { "\($0.queueCount)" } ?? "?"
        case .depth: device.info.map { "\($0.queueDepth)" } ?? "?"
        case .ro: device.record.map { $0.isReadOnly ? "1" : "0" } ?? "?"
        case .pid: device.server.map { "\($0)" } ?? "-"
        case .block: device.blockSizeBytes.map { "\($0)" } ?? "?"
        case .access: device.record?.isDirect.map { $0 ? "direct" : "buffered" } ?? "?"
        case .zc: device.info.map { $0.isZeroCopy ? "1" : "0" } ?? "?"
        case .request: device.info.map { SizeText.short(UInt64($0.maxIOSizeBytes)) } ?? "?"
        case .buffers: device.info.map { SizeText.short(UInt64($0.bufferBytes)) } ?? "?"
        case .resident: device.memory.map { SizeText.short($0.residentBytes) } ?? "?"
        case .locked: device.memory.map { SizeText.short($0.lockedBytes) } ?? "?"
        case .base: device.record?.base == nil ? "-" : DeviceFigures.base(of: device)["base-state"]?.text ?? "?"
        case .name: device.record?.name?.text ?? "-"
        case .symlink: device.record?.link?.path.printable ?? "-"
        case .image: device.record?.imagePath.printable ?? "?"
        }
    }
}

extension KnownDevice {
    fileprivate var json: JSONValue {
        let size: JSONValue = if let sizeBytes { JSONValue(sizeBytes) } else { .null }
        let queues: JSONValue = if let info { JSONValue(info.queueCount) } else { .null }
        let depth: JSONValue = if let info { JSONValue(info.queueDepth) } else { .null }
        let blockSize: JSONValue = if let blockSizeBytes { JSONValue(blockSizeBytes) } else { .null }
        let memory = memory
        let name: JSONValue = if let name = record?.name { .string(name.text) } else { .null }
        func bytes(_ value: UInt64?) -> JSONValue { value.map { JSONValue($0) } ?? .null }
        var members: [JSONValue.Member] = [
            .init("device", .string(path)), .init("id", JSONValue(id)), .init("state", .string(state)),
            .init("size", size), .init("queues", queues), .init("depth", depth),
            .init("read-only", record.map { .bool($0.isReadOnly) } ?? .null),
            .init("zero-copy", info.map { .bool($0.isZeroCopy) } ?? .null), .init("pid", server.map { JSONValue($0) } ?? .null),
            .init("image", record.map { .string($0.imagePath) } ?? .null),
            .init("name", name), .init("symlink", record?.link.map { .string($0.path) } ?? .null), .init("block-size", blockSize),
            .init("direct-io", record?.isDirect.map { .bool($0) } ?? .null),
            .init("max-io-size", info.map { JSONValue($0.maxIOSizeBytes) } ?? .null),
            .init(
                "memory",
                .object([
                    .init("io-buffers", bytes((info?.bufferBytes).map(UInt64.init))),
                    .init("resident", bytes(memory?.residentBytes)), .init("locked", bytes(memory?.lockedBytes)),
                ])),
        ]
        if case .object(let base) = DeviceFigures.base(of: self) { members += base }
        return .object(members)
    }
}
