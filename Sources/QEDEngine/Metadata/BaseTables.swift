import QEDFormat

/// What the engine has of a QED file beneath the image in memory: its header and its L1 table. Its L2 tables are read when a page
/// of the chain is made (`PageResolver`), and not kept.
final class BaseTables: Sendable {
    let geometry: QEDGeometry
    private let header: QEDHeader
    private let bounds: TableEntryBounds
    private let l1: [UInt64]
    let sizeBytes: UInt64

    /// - Parameter l1: the raw values of the first entries of the L1 table, host byte order, as many as the size needs.
    init(header: QEDHeader, fileSizeBytes: UInt64, l1: [UInt64]) {
        self.header = header
        geometry = header.geometry
        bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        sizeBytes = header.imageSizeBytes
        self.l1 = l1
        precondition(
            l1.count == geometry.requiredL1Entries(imageSizeBytes: sizeBytes), "entries of another size's L1 table")
    }

    private init(_ tables: BaseTables, bounds: TableEntryBounds) {
        geometry = tables.geometry
        self.bounds = bounds
        sizeBytes = tables.sizeBytes
        l1 = tables.l1
        header = tables.header
    }

    /// The same of a file that is written meanwhile, and may get longer.
    func ofGrowingFile(_ fileSizeBytes: UInt64) -> BaseTables {
        BaseTables(self, bounds: TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes))
    }

    /// Where the entries lie of the clusters from a device offset on.
    enum Place {
        /// There are none: nothing is allocated.
        case nowhere
        /// The entry of their table cannot be right.
        case invalid
        /// In this page of an L2 table.
        case page(fileOffset: UInt64)
    }

    /// - Parameter deviceOffset: of the file's own disk.
    func place(of deviceOffset: UInt64) -> Place {
        guard deviceOffset < sizeBytes else { return .nowhere }
        switch bounds.l1Entry(l1[geometry.l1Index(ofDeviceOffset: deviceOffset)]) {
        case .unallocated: return .nowhere
        case .invalid: return isSabotaged(.trustTableEntries) ? .nowhere : .invalid
        case .allocated(let table):
            return .page(
                fileOffset: table + geometry.offsetInTable(ofL2Page: geometry.l2PageNumber(ofDeviceOffset: deviceOffset)))
        }
    }

    /// What an entry says of a piece of its cluster.
    /// - Parameters:
    ///   - page: the 512 entries of the L2 page that maps `deviceOffset`, as they are in the file.
    ///   - layerNumber: of this file.
    @inline(__always)
    func entry(
        at deviceOffset: UInt64, in page: UnsafePointer<UInt64>, layerNumber: Int
    ) -> ResolvedEntry {
        ResolvedEntry(
            l2Value: UInt64(littleEndian: page[geometry.indexInL2Page(ofDeviceOffset: deviceOffset)]), bounds,
            offsetInCluster: deviceOffset & geometry.clusterMask, layerNumber: layerNumber)
    }
}

extension ResolvedEntry {
    /// What an L2 entry says of a piece of its cluster.
    @inline(__always)
    init(l2Value value: UInt64, _ bounds: TableEntryBounds, offsetInCluster: UInt64, layerNumber: Int) {
        switch bounds.l2Entry(value) {
        case .unallocated: self = .unknown
        case .zero: self = .zeros
        case .allocated(let fileOffset):
            self.init(layerNumber: layerNumber, fileOffset: fileOffset + offsetInCluster)
        case .invalid:
            self =
                isSabotaged(.trustTableEntries)
                ? ResolvedEntry(layerNumber: layerNumber, fileOffset: value &+ offsetInCluster)
                : .invalid(layerNumber: layerNumber)
        }
    }
}
