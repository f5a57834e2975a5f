/// Writes headers of any content, possible or not, byte by byte: independent of the code under test. The default is a
/// fresh image of 1 GiB with 64 KiB clusters and tables of four.
public struct HeaderBuilder: Sendable {
    public var magic: UInt32 = 0x0044_4551
    public var clusterSize: UInt32 = 65536
    public var tableSize: UInt32 = 4
    public var headerSize: UInt32 = 1
    public var features: UInt64 = 0
    public var compatFeatures: UInt64 = 0
    public var autoclearFeatures: UInt64 = 0
    public var l1TableOffset: UInt64 = 65536
    public var imageSize: UInt64 = 1 << 30
    public var backingFileNameOffset: UInt32 = 0
    public var backingFileNameSize: UInt32 = 0

    /// Length of the file the header is said to be in.
    public var fileSizeBytes: UInt64 = 327_680

    public var bytes: [UInt8] {
        func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
            (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
        return [magic, clusterSize, tableSize, headerSize].flatMap(littleEndian)
            + [features, compatFeatures, autoclearFeatures, l1TableOffset, imageSize].flatMap(littleEndian)
            + [backingFileNameOffset, backingFileNameSize].flatMap(littleEndian)
    }

    public init(_ change: (inout HeaderBuilder) -> Void = { _ in }) {
        change(&self)
    }
}
