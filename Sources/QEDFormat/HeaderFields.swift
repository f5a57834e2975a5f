/// The fields of the header: where each lies in the file, and what users call it.
public enum QEDHeaderField: Int, Sendable, Hashable, CaseIterable {
    case magic = 0
    case clusterSize = 4
    case tableSize = 8
    case headerSize = 12
    case features = 16
    case compatFeatures = 24
    case autoclearFeatures = 32
    case l1TableOffset = 40
    case imageSize = 48
    case backingFileNameOffset = 56
    case backingFileNameSize = 60

    /// Offset of the field's first byte from the start of the file.
    public var fileOffset: Int { rawValue }
}

/// The 64 bytes of a header taken apart into integers, none of them checked.
struct HeaderFields: Sendable, Hashable {
    var magic: UInt32
    var clusterSize: UInt32
    var tableSize: UInt32
    var headerSize: UInt32
    var features: UInt64
    var compatFeatures: UInt64
    var autoclearFeatures: UInt64
    var l1TableOffset: UInt64
    var imageSize: UInt64
    var backingFileNameOffset: UInt32
    var backingFileNameSize: UInt32

    /// The bytes "QED" and NUL as a little-endian number.
    static let magicNumber: UInt32 = 0x0044_4551
}

extension HeaderFields {
    /// `bytes` must hold the 64 bytes of a header at least.
    init(decoding bytes: RawSpan) {
        magic = bytes.littleEndian(.magic)
        clusterSize = bytes.littleEndian(.clusterSize)
        tableSize = bytes.littleEndian(.tableSize)
        headerSize = bytes.littleEndian(.headerSize)
        features = bytes.littleEndian(.features)
        compatFeatures = bytes.littleEndian(.compatFeatures)
        autoclearFeatures = bytes.littleEndian(.autoclearFeatures)
        l1TableOffset = bytes.littleEndian(.l1TableOffset)
        imageSize = bytes.littleEndian(.imageSize)
        backingFileNameOffset = bytes.littleEndian(.backingFileNameOffset)
        backingFileNameSize = bytes.littleEndian(.backingFileNameSize)
    }

    /// The 64 bytes of the header.
    func encoded() -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: QEDLimits.headerSizeBytes)
        bytes.store(magic, in: .magic)
        bytes.store(clusterSize, in: .clusterSize)
        bytes.store(tableSize, in: .tableSize)
        bytes.store(headerSize, in: .headerSize)
        bytes.store(features, in: .features)
        bytes.store(compatFeatures, in: .compatFeatures)
        bytes.store(autoclearFeatures, in: .autoclearFeatures)
        bytes.store(l1TableOffset, in: .l1TableOffset)
        bytes.store(imageSize, in: .imageSize)
        bytes.store(backingFileNameOffset, in: .backingFileNameOffset)
        bytes.store(backingFileNameSize, in: .backingFileNameSize)
        return bytes
    }
}

extension RawSpan {
    fileprivate func littleEndian<Value: FixedWidthInteger & BitwiseCopyable>(_ field: QEDHeaderField) -> Value {
        // SAFETY: the span checks its bounds, and every bit pattern is an integer.
        unsafe Value(littleEndian: unsafeLoadUnaligned(fromByteOffset: field.fileOffset, as: Value.self))
    }
}

extension [UInt8] {
    fileprivate mutating func store(_ value: some FixedWidthInteger, in field: QEDHeaderField) {
        for index in 0..<value.bitWidth / 8 {
            self[field.fileOffset + index] = UInt8(truncatingIfNeeded: value >> (8 * index))
        }
    }
}
