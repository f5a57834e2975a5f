/// What QEMU (every version up to 10.0 at least) gets wrong with an image of a certain geometry.
///
/// The format allows these geometries and this implementation serves them; they matter to whoever wants to hand the
/// image to QEMU.
public enum QEMULimitation: Sendable, Hashable {
    /// Tables of one cluster. QEMU takes such a table for one that overflows the file and refuses to open the image.
    case tablesOfOneCluster
    /// The tables could map 2^64 bytes or more. QEMU computes that limit modulo 2^64, finds zero and refuses every
    /// image that is not empty.
    case maximumImageSizeWraps
    /// One request can cover `clusterSizeBytes - 1` clusters of one L2 table. QEMU then counts one cluster too many and
    /// overwrites its neighbour.
    case largeWritesDestroyNeighbours(requestSizeBytes: UInt64)
    /// One L2 table maps 4 GiB or more. QEMU reports the state of a uniform range in 32 bits and its tools abort on a
    /// range of exactly 4 GiB.
    case mappingToolsAbort

    /// Whether QEMU refuses to open the image; otherwise it opens the image and may mishandle it.
    public var preventsOpening: Bool {
        switch self {
        case .tablesOfOneCluster, .maximumImageSizeWraps: true
        case .largeWritesDestroyNeighbours, .mappingToolsAbort: false
        }
    }
}

extension QEDGeometry {
    /// The most serious limitation of QEMU that applies to images of this geometry, or nil if QEMU handles them well.
    public var qemuLimitation: QEMULimitation? {
        if tableSizeClusters == 1 { return .tablesOfOneCluster }
        if l1Shift + tableEntriesShift >= 64 { return .maximumImageSizeWraps }
        // QEMU splits requests below 2^31 bytes, so the miscount needs (clusterSizeBytes - 1) clusters in less than
        // that.
        let miscountedSizeBytes = (clusterSizeBytes - 1) * clusterSizeBytes
        if UInt64(entriesPerTable) >= clusterSizeBytes - 1, miscountedSizeBytes < 1 << 31 {
            return .largeWritesDestroyNeighbours(requestSizeBytes: miscountedSizeBytes)
        }
        if bytesPerL2Table >= 1 << 32 { return .mappingToolsAbort }
        return nil
    }
}

extension QEMULimitation: CustomStringConvertible {
    /// One clause that explains the limitation to users.
    public var description: String {
        switch self {
        case .tablesOfOneCluster:
            "QEMU cannot open images with tables of one cluster"
        case .maximumImageSizeWraps:
            "QEMU cannot open images whose tables could map 2^64 bytes or more"
        case .largeWritesDestroyNeighbours(let requestSizeBytes):
            "QEMU destroys data in images of this geometry when one write covers \(requestSizeBytes) bytes or more"
        case .mappingToolsAbort:
            "qemu-img map and compare can abort on images whose L2 tables map 4 GiB or more"
        }
    }
}
