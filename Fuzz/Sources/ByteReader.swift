/// An input, byte by byte; zeros behind its end.
struct ByteReader {
    private let bytes: [UInt8]
    private var position = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { position >= bytes.count }

    mutating func byte() -> UInt8 {
        defer { position += 1 }
        return position < bytes.count ? bytes[position] : 0
    }

    mutating func half() -> UInt64 { UInt64(byte()) | UInt64(byte()) << 8 }

    mutating func word() -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(byte()) << (8 * UInt64($1)) } }

    /// What has not been read.
    var rest: [UInt8] { isAtEnd ? [] : Array(bytes[position...]) }
}
