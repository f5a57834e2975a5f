/// The header of a member as an input describes it. All values are possible, those of usable images most of the time.
package struct HeaderRecipe {
    package var clusterSize: UInt64
    package var tableSize: UInt64
    package var headerClusters: UInt64
    package var features: UInt64
    package var compatFeatures: UInt64
    package var autoclearFeatures: UInt64
    /// Clusters between the header area and the L1 table.
    package var gapClusters: UInt64
    package var imageSize: UInt64
    /// Of the file: clusters behind the last one in use, then bytes.
    package var spareClusters: UInt64
    package var tail: Int64
    package var lengthExtra: UInt64

    /// Cluster size as a power of two, and clusters per table. The small ones come first: they are fast.
    package static let geometries: [(shift: UInt64, table: UInt64)] = [
        (12, 1), (12, 2), (12, 4), (12, 8), (12, 16), (13, 1), (13, 2), (14, 2), (16, 1), (16, 2), (16, 4), (16, 16),
        (20, 1), (20, 2), (21, 8), (22, 2), (24, 1),
    ]

    package static let tails: [Int64] = [0, 1, 511, 512, 513, 4095, -1, -511, -512, -513, -4095]

    package static let literalGeometry: UInt8 = 0xff

    package init(_ reader: inout ByteReader) {
        let geometry = reader.byte()
        if geometry == HeaderRecipe.literalGeometry {
            clusterSize = reader.word() & 0xffff_ffff
            tableSize = reader.word() & 0xffff_ffff
        } else {
            // Most of the bytes mean the small geometries.
            let limit = geometry < 0xa0 ? 5 : HeaderRecipe.geometries.count
            let choice = HeaderRecipe.geometries[Int(geometry) % limit]
            clusterSize = 1 << choice.shift
            tableSize = choice.table
        }
        let flags = reader.byte()
        features = UInt64(flags & 7) | (flags & 0xe0 == 0xe0 ? 1 << 40 : 0)
        compatFeatures = flags & 8 != 0 ? 0x8000_0000_0000_0001 : 0
        autoclearFeatures = flags & 16 != 0 ? 6 : 0
        let places = reader.byte()
        headerClusters = UInt64(places & 3) + 1
        gapClusters = UInt64(places >> 4 & 7)
        let entries = max(clusterSize &* tableSize / 8, 1)
        let size = reader.half()
        switch reader.byte() {
        case 0..<0x80: imageSize = size &* clusterSize
        case 0x80: imageSize = size &* clusterSize &+ 512
        case 0x81: imageSize = size &* 512
        case 0x82: imageSize = entries &* clusterSize
        case 0x83: imageSize = entries &* clusterSize &+ clusterSize
        case 0x84: imageSize = entries &* entries &* clusterSize
        case 0x85: imageSize = entries &* entries &* clusterSize &+ 512
        case 0x86: imageSize = 1 << 63 - 1 << 30
        case 0x87: imageSize = 1 << 63 - 512
        case 0x88: imageSize = 1 << 63
        case 0x89: imageSize = size
        case 0x8a: imageSize = (size << 3) &* entries &* clusterSize
        case 0x8b: imageSize = reader.word()
        default: imageSize = 512 &* entries
        }
        spareClusters = UInt64(reader.byte())
        tail = HeaderRecipe.tails[Int(reader.byte()) % HeaderRecipe.tails.count]
        lengthExtra = ImageRecipe.lengthExtra(reader.byte())
    }
}
