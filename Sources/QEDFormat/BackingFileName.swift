/// The name of a backing file as an image stores it: bytes, in whatever encoding the file system uses.
public struct BackingFileName: Sendable, Hashable {
    /// 1 to 4095 bytes, none of them NUL.
    public let bytes: [UInt8]

    /// - Throws: `backingFileNameEmpty`, `backingFileNameTooLong` or `backingFileNameContainsNUL`. QEMU would take a
    ///   name with a NUL byte for the part in front of it, and so open another file than the one that is named.
    public init(_ bytes: [UInt8]) throws(QEDFormatError) {
        guard !bytes.isEmpty else { throw .backingFileNameEmpty }
        guard bytes.count <= QEDLimits.maximumBackingFileNameSizeBytes
        else { throw .backingFileNameTooLong(sizeBytes: UInt64(bytes.count)) }
        if let position = bytes.firstIndex(of: 0) { throw .backingFileNameContainsNUL(position: position) }
        self.bytes = bytes
    }

    /// Whether QEMU would take the name for a protocol and an address (`nbd:…`, `json:…`) rather than for a file: it
    /// has a colon before any slash.
    public var looksLikeProtocol: Bool {
        let colon = UInt8(ascii: ":")
        let slash = UInt8(ascii: "/")
        return bytes.first { $0 == colon || $0 == slash } == colon
    }

    /// Whether the name is a path from the root, rather than from the directory of the image that stores it.
    public var isAbsolute: Bool { bytes.first == UInt8(ascii: "/") }
}

/// Where an image stores the name of its backing file.
public struct BackingFileNameRange: Sendable, Hashable {
    /// Offset of the first byte from the start of the file.
    public let fileOffset: UInt64
    /// Number of bytes.
    public let sizeBytes: Int

    init(fileOffset: UInt64, sizeBytes: Int) {
        self.fileOffset = fileOffset
        self.sizeBytes = sizeBytes
    }

    /// Offset behind the last byte from the start of the file. Both fields come from 32 bits: no overflow.
    public var endFileOffset: UInt64 { fileOffset + UInt64(sizeBytes) }
}
