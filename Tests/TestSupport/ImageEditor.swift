import Foundation

/// Reads and changes the numbers of an image file, to damage it or to see what is in it.
public struct ImageEditor {
    public let path: String
    public let clusterSizeBytes: UInt64
    public let tableSizeClusters: UInt64
    public let l1FileOffset: UInt64
    private let handle: FileHandle

    public init(_ path: String) throws {
        self.path = path
        handle = try FileHandle(forUpdating: URL(fileURLWithPath: path))
        let header = try ImageEditor.read(handle, at: 0, count: 64)
        func number(_ offset: Int, _ bytes: Int) -> UInt64 {
            (0..<bytes).reduce(0) { $0 | UInt64(header[offset + $1]) << (8 * UInt64($1)) }
        }
        clusterSizeBytes = number(4, 4)
        tableSizeClusters = number(8, 4)
        l1FileOffset = number(40, 8)
    }

    public var entriesPerTable: Int { Int(clusterSizeBytes * tableSizeClusters / 8) }
    public var tableSizeBytes: UInt64 { clusterSizeBytes * tableSizeClusters }

    public func word(at fileOffset: UInt64) throws -> UInt64 {
        let bytes = try ImageEditor.read(handle, at: fileOffset, count: 8)
        return (0..<8).reduce(0) { $0 | UInt64(bytes[$1]) << (8 * UInt64($1)) }
    }

    public func setWord(_ value: UInt64, at fileOffset: UInt64) throws {
        try handle.seek(toOffset: fileOffset)
        try handle.write(contentsOf: Data((0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * UInt64($0))) }))
    }

    public func l1Entry(_ index: Int) throws -> UInt64 { try word(at: l1FileOffset + UInt64(index * 8)) }
    public func setL1Entry(_ index: Int, _ value: UInt64) throws {
        try setWord(value, at: l1FileOffset + UInt64(index * 8))
    }

    public func l2Entry(_ l1Index: Int, _ index: Int) throws -> UInt64 {
        try word(at: try l1Entry(l1Index) + UInt64(index * 8))
    }
    public func setL2Entry(_ l1Index: Int, _ index: Int, _ value: UInt64) throws {
        try setWord(value, at: try l1Entry(l1Index) + UInt64(index * 8))
    }

    public var features: UInt64 { get throws { try word(at: 16) } }
    public func setFeatures(_ value: UInt64) throws { try setWord(value, at: 16) }

    public var fileSizeBytes: UInt64 { get throws { try handle.seekToEnd() } }
    public func setFileSize(_ bytes: UInt64) throws { try handle.truncate(atOffset: bytes) }

    private static func read(_ handle: FileHandle, at fileOffset: UInt64, count: Int) throws -> Data {
        try handle.seek(toOffset: fileOffset)
        let bytes = try handle.read(upToCount: count) ?? Data()
        return bytes + Data(count: count - bytes.count)
    }
}
