import DeviceServer
import Glibc
import ImageTools
import Platform
import QEDEngine

/// Performs the commands of a script on a disk.
struct DiskScriptPlayer {
    /// What became of a command.
    struct Step {
        var command: DiskScript
        var text: String
        var json: JSONValue
        /// It was asked for more than that it is done.
        var isAnswer = false
        /// The first byte that does not have the pattern.
        var mismatch: UInt64?
    }

    private let disk: Disk
    private let buffer: IOBuffer
    private static let pieceBytes: UInt64 = 16 << 20
    private static let sectorBytes: UInt64 = 512

    init(_ disk: Disk) {
        self.disk = disk
        buffer = IOBuffer(byteCount: Int(DiskScriptPlayer.pieceBytes + 2 * DiskScriptPlayer.sectorBytes))
    }

    mutating func perform(_ command: DiskScript) throws -> Step {
        switch command {
        case .read(let range, let pattern, let dump):
            return try read(range, pattern: pattern, dump: dump, command)
        case .write(let range, let pattern, let forcesUnitAccess):
            try write(range, pattern: pattern, forcesUnitAccess: forcesUnitAccess)
            return step(command, "wrote", range)
        case .writeZeroes(let range, let unmap):
            if (range.offset | range.byteCount) % DiskScriptPlayer.sectorBytes == 0 {
                try disk.perform([
                    BlockRequest(
                        .writeZeroes, deviceOffset: range.offset, byteCount: range.byteCount, keepsSpace: !unmap)
                ])
            } else {
                try write(range, pattern: 0, forcesUnitAccess: false)
            }
            return step(command, "wrote", range)
        case .discard(let range):
            // Only whole sectors can be given back.
            let sector = DiskScriptPlayer.sectorBytes
            let start = (range.offset + sector - 1) / sector * sector
            let end = (range.offset + range.byteCount) / sector * sector
            if end > start { try disk.perform([BlockRequest(.discard, deviceOffset: start, byteCount: end - start)]) }
            return step(command, "discard", range)
        case .flush:
            try disk.perform([BlockRequest(.flush)])
            return Step(command: command, text: "flushed", json: ["operation": "flush"])
        case .length:
            return Step(
                command: command, text: "\(disk.sizeBytes)",
                json: ["operation": "length", "length": JSONValue(disk.sizeBytes)], isAnswer: true)
        case .map: return try map(command)
        }
    }

    private func step(_ command: DiskScript, _ verb: String, _ range: DiskScript.Range) -> Step {
        Step(
            command: command, text: "\(verb) \(range.byteCount)/\(range.byteCount) bytes at offset \(range.offset)",
            json: [
                "operation": .string(verb == "wrote" ? "write" : verb), "offset": JSONValue(range.offset),
                "length": JSONValue(range.byteCount),
            ])
    }

    /// Refuses commands that reach past the end of the disk, before any is performed.
    func check(_ commands: [DiskScript]) throws(ImageToolError) {
        for command in commands {
            if let range = command.range { try check(range) }
        }
    }

    private func check(_ range: DiskScript.Range) throws(ImageToolError) {
        guard range.offset + range.byteCount <= disk.sizeBytes else {
            throw .refused(
                path: disk.path,
                reason:
                    "has \(disk.sizeBytes) bytes, and offset \(range.offset) and length \(range.byteCount) go past it"
            )
        }
    }

    /// Goes through a range in pieces: `body` gets each, and the whole sectors around it, which start the buffer.
    private func forEachPiece(
        of range: DiskScript.Range, _ body: (Swift.Range<UInt64>, Swift.Range<UInt64>) throws -> Void
    ) throws {
        let sector = DiskScriptPlayer.sectorBytes
        var position = range.offset
        while position < range.offset + range.byteCount {
            let end = min(position + DiskScriptPlayer.pieceBytes, range.offset + range.byteCount)
            try body(position..<end, (position / sector * sector)..<((end + sector - 1) / sector * sector))
            position = end
        }
    }

    private func transfer(_ operation: BlockOperation, _ sectors: Swift.Range<UInt64>, forcesUnitAccess: Bool = false)
        throws
    {
        let unit = UInt64(Disk.largestRequestBytes)
        try disk.perform(
            stride(from: sectors.lowerBound, to: sectors.upperBound, by: UInt64.Stride(unit)).map {
                BlockRequest(
                    operation, deviceOffset: $0, byteCount: min(unit, sectors.upperBound - $0),
                    buffer: buffer.address + Int($0 - sectors.lowerBound), forcesUnitAccess: forcesUnitAccess)
            })
    }

    private func write(_ range: DiskScript.Range, pattern: UInt8, forcesUnitAccess: Bool) throws {
        try forEachPiece(of: range) { piece, sectors in
            // Sectors that are written in part keep the rest.
            if piece != sectors { try transfer(.read, sectors) }
            memset(buffer.address + Int(piece.lowerBound - sectors.lowerBound), Int32(pattern), piece.count)
            try transfer(.write, sectors, forcesUnitAccess: forcesUnitAccess)
        }
    }

    private func read(
        _ range: DiskScript.Range, pattern: UInt8?, dump: Bool, _ command: DiskScript
    ) throws -> Step {
        var mismatch: UInt64?
        var lines = ""
        try forEachPiece(of: range) { piece, sectors in
            try transfer(.read, sectors)
            let bytes = UnsafeRawBufferPointer(
                start: buffer.address + Int(piece.lowerBound - sectors.lowerBound), count: piece.count)
            if let pattern, mismatch == nil, let index = bytes.firstIndex(where: { $0 != pattern }) {
                mismatch = piece.lowerBound + UInt64(index)
            }
            if dump { lines += HexDump.lines(bytes, offset: piece.lowerBound) }
        }
        var step = step(command, "read", range)
        step.mismatch = mismatch
        step.isAnswer = dump || mismatch != nil
        if let mismatch {
            step.text = "Pattern verification failed at offset \(mismatch)\n" + step.text
        }
        step.text = lines + step.text
        if case .object(var members) = step.json {
            if pattern != nil { members.append(.init("matches", .bool(mismatch == nil))) }
            if let mismatch { members.append(.init("mismatch-offset", JSONValue(mismatch))) }
            if dump { members.append(.init("dump", .string(lines))) }
            step.json = .object(members)
        }
        return step
    }

    private func map(_ command: DiskScript) throws -> Step {
        var lines: [String] = []
        var extents: [JSONValue] = []
        try disk.map().forEachExtent { extent throws(ImageToolError) in
            let kind =
                switch extent.kind {
                case .data: "data"
                case .zero: "zero"
                case .unallocated: "unallocated"
                }
            lines.append("\(extent.length) bytes \(kind) at offset \(extent.start), depth \(extent.depth)")
            extents.append([
                "start": JSONValue(extent.start), "length": JSONValue(extent.length), "kind": .string(kind),
                "depth": JSONValue(extent.depth),
            ])
        }
        return Step(
            command: command, text: lines.joined(separator: "\n"),
            json: ["operation": "map", "extents": .array(extents)], isAnswer: true)
    }
}

/// Memory for requests, aligned to pages.
final class IOBuffer {
    // SAFETY: freed in deinit; used by the thread that holds the reference.
    let address: UnsafeMutableRawPointer

    init(byteCount: Int) { address = .allocate(byteCount: byteCount, alignment: 4096) }

    deinit { address.deallocate() }
}

/// Bytes as qemu-io shows them: sixteen to a line, with the offset in front and the printable ones behind.
enum HexDump {
    static func lines(_ bytes: UnsafeRawBufferPointer, offset: UInt64) -> String {
        var text = ""
        for start in stride(from: 0, to: bytes.count, by: 16) {
            let line = bytes[start..<min(start + 16, bytes.count)]
            let hex = line.map { padded(UInt64($0), digits: 2) }.joined(separator: " ")
            let letters = line.map { (0x20..<0x7f).contains($0) ? String(UnicodeScalar($0)) : "." }.joined()
            text +=
                padded(offset + UInt64(start), digits: 8) + ":  " + hex + "  " + letters + "\n"
        }
        return text
    }

    private static func padded(_ value: UInt64, digits: Int) -> String {
        let text = String(value, radix: 16)
        return String(repeating: "0", count: max(digits - text.count, 0)) + text
    }
}
