/// The two sizes that fix the layout of an image, and everything that follows from them.
///
/// An image is divided into clusters. An L1 or L2 table is `tableSizeClusters` contiguous clusters of 8-byte entries.
/// The L1 table's entries point to L2 tables, whose entries point to data clusters. All sizes are powers of two, so a
/// device offset is taken apart with shifts and masks.
///
/// L2 tables are cached in *pages* of 4096 bytes. A table is never smaller than a page and always a whole number of
/// them. Pages are numbered through the device, as if all L2 tables followed each other.
public struct QEDGeometry: Sendable, Hashable {
    /// Size of an L2 page, the unit of metadata caching.
    public static let l2PageSizeBytes = 4096
    /// Entries of 8 bytes in an L2 page.
    public static let entriesPerL2Page = 512
    @usableFromInline static let entriesPerL2PageShift: UInt64 = 9

    /// Size of a cluster; a power of two.
    public let clusterSizeBytes: UInt64
    /// Clusters per L1 or L2 table; a power of two.
    public let tableSizeClusters: UInt64
    /// log2 of the cluster size.
    public let clusterShift: UInt64
    /// log2 of the entries in a table.
    public let tableEntriesShift: UInt64
    /// log2 of the device bytes that one L2 table maps: a device offset shifted right by this is its L1 index.
    public let l1Shift: UInt64
    /// log2 of the device bytes that one L2 page maps.
    public let l2PageShift: UInt64
    /// `clusterSizeBytes - 1`.
    public let clusterMask: UInt64
    /// `entriesPerTable - 1`.
    public let tableIndexMask: UInt64

    /// - Parameters:
    ///   - clusterSizeBytes: a power of two from 4096 to 67108864.
    ///   - tableSizeClusters: a power of two from 1 to 16.
    /// - Throws: `invalidClusterSize`, `invalidTableSize`, or `tableTooLarge` for a combination that the format allows
    ///   but this implementation does not (``QEDLimits/maximumTableSizeBytes``).
    public init(clusterSizeBytes: UInt64, tableSizeClusters: UInt64) throws(QEDFormatError) {
        guard clusterSizeBytes.nonzeroBitCount == 1,
            clusterSizeBytes >= QEDLimits.minimumClusterSizeBytes,
            clusterSizeBytes <= QEDLimits.maximumClusterSizeBytes
        else { throw .invalidClusterSize(bytes: clusterSizeBytes) }
        guard tableSizeClusters.nonzeroBitCount == 1, tableSizeClusters <= QEDLimits.maximumTableSizeClusters
        else { throw .invalidTableSize(clusters: tableSizeClusters) }
        guard clusterSizeBytes * tableSizeClusters <= QEDLimits.maximumTableSizeBytes
        else { throw .tableTooLarge(bytes: clusterSizeBytes * tableSizeClusters) }

        self.clusterSizeBytes = clusterSizeBytes
        self.tableSizeClusters = tableSizeClusters
        clusterShift = UInt64(clusterSizeBytes.trailingZeroBitCount)
        tableEntriesShift = clusterShift + UInt64(tableSizeClusters.trailingZeroBitCount) - 3
        l1Shift = clusterShift + tableEntriesShift
        l2PageShift = clusterShift + Self.entriesPerL2PageShift
        clusterMask = clusterSizeBytes - 1
        tableIndexMask = (1 << tableEntriesShift) - 1
    }

    /// 64 KiB clusters and tables of 4 clusters: what QEMU creates unless told otherwise.
    public static let standard = QEDGeometry(clusterShift: 16, tableSizeShift: 2)

    private init(clusterShift: UInt64, tableSizeShift: UInt64) {
        clusterSizeBytes = 1 << clusterShift
        tableSizeClusters = 1 << tableSizeShift
        self.clusterShift = clusterShift
        tableEntriesShift = clusterShift + tableSizeShift - 3
        l1Shift = clusterShift + tableEntriesShift
        l2PageShift = clusterShift + Self.entriesPerL2PageShift
        clusterMask = clusterSizeBytes - 1
        tableIndexMask = (1 << tableEntriesShift) - 1
    }
}

// MARK: - Sizes

extension QEDGeometry {
    /// Entries in an L1 or L2 table.
    @inlinable @inline(__always)
    public var entriesPerTable: Int { 1 &<< Int(truncatingIfNeeded: tableEntriesShift) }

    /// Bytes of an L1 or L2 table.
    @inlinable @inline(__always)
    public var tableSizeBytes: UInt64 { 8 &<< tableEntriesShift }

    /// Device bytes that one L2 table maps.
    @inlinable @inline(__always)
    public var bytesPerL2Table: UInt64 { 1 &<< l1Shift }

    /// Device bytes that one L2 page maps.
    @inlinable @inline(__always)
    public var bytesPerL2Page: UInt64 { 1 &<< l2PageShift }

    /// L2 pages in a table.
    @inlinable @inline(__always)
    public var pagesPerTable: Int { 1 &<< Int(truncatingIfNeeded: tableEntriesShift &- Self.entriesPerL2PageShift) }

    /// The largest image these tables can map, or ``QEDLimits/maximumImageSizeBytes`` if that is less.
    public var maximumImageSizeBytes: UInt64 {
        let shift = l1Shift + tableEntriesShift
        return shift >= 63 ? QEDLimits.maximumImageSizeBytes : 1 << shift
    }

    /// L1 entries that an image of `imageSizeBytes` uses, which is all of the L1 table that has to be loaded to serve
    /// it.
    @inlinable
    public func requiredL1Entries(imageSizeBytes: UInt64) -> Int {
        let whole = imageSizeBytes &>> l1Shift
        let partial: UInt64 = imageSizeBytes & (bytesPerL2Table &- 1) == 0 ? 0 : 1
        return Int(truncatingIfNeeded: whole &+ partial)
    }
}

// MARK: - Translation of device offsets (bytes from the start of the device)

extension QEDGeometry {
    /// Index in the L1 table of the entry for `deviceOffset`.
    @inlinable @inline(__always)
    public func l1Index(ofDeviceOffset deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: deviceOffset &>> l1Shift)
    }

    /// Index in its L2 table of the entry for `deviceOffset`.
    @inlinable @inline(__always)
    public func l2Index(ofDeviceOffset deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: (deviceOffset &>> clusterShift) & tableIndexMask)
    }

    /// Offset of `deviceOffset` in its cluster.
    @inlinable @inline(__always)
    public func offsetInCluster(ofDeviceOffset deviceOffset: UInt64) -> UInt64 {
        deviceOffset & clusterMask
    }

    /// Number of the L2 page that maps `deviceOffset`, counted through the device.
    @inlinable @inline(__always)
    public func l2PageNumber(ofDeviceOffset deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: deviceOffset &>> l2PageShift)
    }

    /// Index in its L2 page of the entry for `deviceOffset`.
    @inlinable @inline(__always)
    public func indexInL2Page(ofDeviceOffset deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: deviceOffset &>> clusterShift) & (Self.entriesPerL2Page &- 1)
    }

    /// Index in the L1 table of the L2 table that holds page `l2PageNumber`.
    @inlinable @inline(__always)
    public func l1Index(ofL2Page l2PageNumber: Int) -> Int {
        l2PageNumber &>> Int(truncatingIfNeeded: tableEntriesShift &- Self.entriesPerL2PageShift)
    }

    /// Distance in bytes of page `l2PageNumber` from the start of the L2 table that holds it.
    @inlinable @inline(__always)
    public func offsetInTable(ofL2Page l2PageNumber: Int) -> UInt64 {
        UInt64(truncatingIfNeeded: (l2PageNumber & (pagesPerTable &- 1)) &* Self.l2PageSizeBytes)
    }

    /// First device offset that page `l2PageNumber` maps.
    @inlinable @inline(__always)
    public func deviceOffset(ofL2Page l2PageNumber: Int) -> UInt64 {
        UInt64(truncatingIfNeeded: l2PageNumber) &<< l2PageShift
    }
}
