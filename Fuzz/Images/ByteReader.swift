/// An input, byte by byte; zeros behind its end.
package struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    package init(_ bytes: [UInt8]) { self.bytes = bytes }

    package var isAtEnd: Bool { position >= bytes.count }

    package mutating func byte() -> UInt8 {
        defer { position += 1 }
        return position < bytes.count ? bytes[position] : 0
    }

    package mutating func half() -> UInt64 { UInt64(byte()) | UInt64(byte()) << 8 }

    package mutating func word() -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(byte()) << (8 * UInt64($1)) } }

    /// What has not been read.
    package var rest: [UInt8] { isAtEnd ? [] : Array(bytes[position...]) }
}
