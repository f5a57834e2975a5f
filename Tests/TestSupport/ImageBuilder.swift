import Foundation

/// An image file put together byte by byte, possible or not, independent of the code under test.
public struct ImageBuilder: Sendable {
    /// Its `fileSizeBytes` is the length that the file gets.
    public var header: HeaderBuilder
    /// File offsets of the L2 tables that `l2` writes to.
    public var tables: [UInt64] = []
    private var pieces: [(fileOffset: UInt64, bytes: [UInt8])] = []

    public init(_ header: HeaderBuilder = HeaderBuilder()) { self.header = header }

    public var clusterSizeBytes: UInt64 { UInt64(header.clusterSize) }

    /// Puts bytes over whatever is there.
    public mutating func put(_ bytes: [UInt8], at fileOffset: UInt64) { pieces.append((fileOffset, bytes)) }

    public mutating func put(_ text: String, at fileOffset: UInt64) { put(Array(text.utf8), at: fileOffset) }

    public mutating func putWord(_ value: UInt64, at fileOffset: UInt64) {
        put((0..<8).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }, at: fileOffset)
    }

    /// Fills a cluster with a byte.
    public mutating func fill(cluster: UInt64, _ byte: UInt8) {
        put(Array(repeating: byte, count: Int(clusterSizeBytes)), at: cluster * clusterSizeBytes)
    }

    public mutating func l1(_ index: UInt64, _ value: UInt64) {
        putWord(value, at: header.l1TableOffset + index * 8)
    }

    public mutating func l2(_ table: Int, _ index: UInt64, _ value: UInt64) {
        putWord(value, at: tables[table] + index * 8)
    }

    /// Names a backing file, at the usual place unless told otherwise.
    public mutating func setBackingFile(_ name: [UInt8], isRaw: Bool, at fileOffset: UInt64 = 64) {
        header.features |= isRaw ? 0x5 : 0x1
        header.backingFileNameOffset = UInt32(fileOffset)
        header.backingFileNameSize = UInt32(name.count)
        put(name, at: fileOffset)
    }

    public mutating func setBackingFile(_ name: String, isRaw: Bool) {
        setBackingFile(Array(name.utf8), isRaw: isRaw)
    }

    /// Makes the file; what nothing was put into is a hole.
    public func write(to path: String) throws {
        try writeFile(path, [])
        let handle = try FileHandle(forWritingTo: URL(fileURLWithPath: path))
        for piece in [(fileOffset: 0, bytes: header.bytes)] + pieces {
            try handle.seek(toOffset: piece.fileOffset)
            try handle.write(contentsOf: Data(piece.bytes))
        }
        try handle.truncate(atOffset: header.fileSizeBytes)
        try handle.close()
    }
}

extension ImageBuilder {
    /// A sound image with something of everything, small enough to be looked at. Clusters of 64 KiB, tables of two,
    /// 3 GiB:
    ///
    ///     cluster  0      header
    ///              1-2    L1 table
    ///              3-4    L2 table of the first GiB
    ///              5 6 7  guest offsets 0, 64 KiB, 128 KiB: bytes 1, 2, 3
    ///              8-9    L2 table of the second GiB
    ///              10     guest offset 1 GiB: bytes 4
    ///
    /// and a zero cluster at 512 KiB. A larger header area moves all of it up.
    public static func specimen(headerClusters: UInt64 = 1) -> ImageBuilder {
        let size: UInt64 = 65536
        let start = headerClusters
        var image = ImageBuilder(
            HeaderBuilder {
                $0.tableSize = 2
                $0.headerSize = UInt32(headerClusters)
                $0.l1TableOffset = start * size
                $0.imageSize = 3 << 30
                $0.fileSizeBytes = (start + 10) * size
            })
        image.tables = [(start + 2) * size, (start + 7) * size]
        for (index, table) in image.tables.enumerated() { image.l1(UInt64(index), table) }
        for number in 0..<3 as Range<UInt64> {
            image.l2(0, number, (start + 4 + number) * size)
            image.fill(cluster: start + 4 + number, UInt8(number + 1))
        }
        image.l2(0, 8, 1)
        image.l2(1, 0, (start + 9) * size)
        image.fill(cluster: start + 9, 4)
        return image
    }

    /// An empty image of this geometry, with its L1 table behind the header.
    public static func empty(
        clusterSize: UInt32, tableSize: UInt32, imageSize: UInt64 = 1 << 30
    ) -> ImageBuilder {
        ImageBuilder(
            HeaderBuilder {
                $0.clusterSize = clusterSize
                $0.tableSize = tableSize
                $0.l1TableOffset = UInt64(clusterSize)
                $0.imageSize = imageSize
                $0.fileSizeBytes = UInt64(clusterSize) * UInt64(1 + tableSize)
            })
    }
}
