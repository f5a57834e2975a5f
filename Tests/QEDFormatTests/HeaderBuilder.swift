import QEDFormat

/// Writes headers of any content, possible or not, byte by byte: independent of the code under test. The default is a
/// fresh image of 1 GiB with 64 KiB clusters and tables of four.
struct HeaderBuilder {
    var magic: UInt32 = 0x0044_4551
    var clusterSize: UInt32 = 65536
    var tableSize: UInt32 = 4
    var headerSize: UInt32 = 1
    var features: UInt64 = 0
    var compatFeatures: UInt64 = 0
    var autoclearFeatures: UInt64 = 0
    var l1TableOffset: UInt64 = 65536
    var imageSize: UInt64 = 1 << 30
    var backingFileNameOffset: UInt32 = 0
    var backingFileNameSize: UInt32 = 0

    /// Length of the file the header is said to be in.
    var fileSizeBytes: UInt64 = 327_680

    var bytes: [UInt8] {
        func littleEndian(_ value: some FixedWidthInteger) -> [UInt8] {
            (0..<value.bitWidth / 8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
        }
        return [magic, clusterSize, tableSize, headerSize].flatMap(littleEndian)
            + [features, compatFeatures, autoclearFeatures, l1TableOffset, imageSize].flatMap(littleEndian)
            + [backingFileNameOffset, backingFileNameSize].flatMap(littleEndian)
    }

    init(_ change: (inout HeaderBuilder) -> Void = { _ in }) {
        change(&self)
    }

    func parsed() throws(QEDFormatError) -> QEDHeader {
        try QEDHeader(parsing: bytes, fileSizeBytes: fileSizeBytes)
    }

    /// The error that parsing throws, or nil if it succeeds.
    var refusal: QEDFormatError? {
        do throws(QEDFormatError) {
            _ = try parsed()
            return nil
        } catch {
            return error
        }
    }
}

/// SplitMix64: the same sequence from the same seed, everywhere.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    init(seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}
