/// What an entry of the L1 table says about the part of the device that one L2 table maps.
public enum L1Entry: Sendable, Hashable {
    /// There is no L2 table: the whole range is unallocated.
    case unallocated
    /// The L2 table starts at this file offset and lies inside the file.
    case allocated(tableFileOffset: UInt64)
    /// The entry must not be followed.
    case invalid(InvalidEntryReason)
}

/// What an entry of an L2 table says about one cluster of the device.
public enum L2Entry: Sendable, Hashable {
    /// Reads come from the backing file, or are zeros.
    case unallocated
    /// Reads are zeros, whatever the backing file holds.
    case zero
    /// The data cluster starts at this file offset and lies inside the file.
    case allocated(clusterFileOffset: UInt64)
    /// The entry must not be followed.
    case invalid(InvalidEntryReason)

    /// The value of an entry that stands for an unallocated cluster, and of an L1 entry without a table.
    public static let unallocatedValue: UInt64 = 0
    /// The value of an entry that stands for a zero cluster. Not valid in the L1 table.
    public static let zeroValue: UInt64 = 1
}

/// Why an entry must not be followed.
public enum InvalidEntryReason: UInt8, Sendable, Hashable {
    /// It is not a multiple of the cluster size.
    case unaligned
    /// It points into the header area.
    case insideHeaderArea
    /// The cluster or table is not inside the file, or not all of it.
    case pastEndOfFile
}

extension InvalidEntryReason: CustomStringConvertible {
    /// A predicate whose subject is the entry.
    public var description: String {
        switch self {
        case .unaligned: "is not a multiple of the cluster size"
        case .insideHeaderArea: "points into the header area"
        case .pastEndOfFile: "points past the end of the file"
        }
    }
}

/// The range of file offsets that table entries may hold, for a file of a certain length.
///
/// Classification costs three comparisons and cannot overflow: an aligned offset below the end of the last whole
/// cluster is the offset of a whole cluster.
public struct TableEntryBounds: Sendable, Hashable {
    @usableFromInline let clusterMask: UInt64
    @usableFromInline let headerAreaSizeBytes: UInt64
    /// End of the last whole cluster of the file: where the next cluster would be allocated.
    public let endOfClustersFileOffset: UInt64
    /// Aligned file offsets below this one leave room for a whole table.
    @usableFromInline let tableFileOffsetLimit: UInt64

    /// - Parameter fileSizeBytes: length of the file. As in QEMU, a length that is not a multiple of 512 counts as
    ///   the next multiple, because sectors are what is read and written; the missing bytes read as zeros.
    public init(geometry: QEDGeometry, headerAreaSizeBytes: UInt64, fileSizeBytes: UInt64) {
        let lengthBytes = min(fileSizeBytes, QEDLimits.maximumFileSizeBytes)
        let sectors = (lengthBytes + QEDLimits.sectorSizeBytes - 1) / QEDLimits.sectorSizeBytes
        clusterMask = geometry.clusterMask
        self.headerAreaSizeBytes = headerAreaSizeBytes
        endOfClustersFileOffset = (sectors * QEDLimits.sectorSizeBytes) & ~geometry.clusterMask
        tableFileOffsetLimit =
            endOfClustersFileOffset < geometry.tableSizeBytes
            ? 0 : endOfClustersFileOffset - geometry.tableSizeBytes + geometry.clusterSizeBytes
    }

    /// The bounds for an image with this header.
    public init(header: QEDHeader, fileSizeBytes: UInt64) {
        self.init(
            geometry: header.geometry, headerAreaSizeBytes: header.headerAreaSizeBytes, fileSizeBytes: fileSizeBytes)
    }

    /// - Parameter value: an entry of the L1 table, in host byte order.
    @inlinable @inline(__always)
    public func l1Entry(_ value: UInt64) -> L1Entry {
        if value == L2Entry.unallocatedValue { return .unallocated }
        if let reason = reasonToRefuse(value, limit: tableFileOffsetLimit) { return .invalid(reason) }
        return .allocated(tableFileOffset: value)
    }

    /// - Parameter value: an entry of an L2 table, in host byte order.
    @inlinable @inline(__always)
    public func l2Entry(_ value: UInt64) -> L2Entry {
        if value == L2Entry.unallocatedValue { return .unallocated }
        if value == L2Entry.zeroValue { return .zero }
        if let reason = reasonToRefuse(value, limit: endOfClustersFileOffset) { return .invalid(reason) }
        return .allocated(clusterFileOffset: value)
    }

    @inlinable @inline(__always)
    func reasonToRefuse(_ value: UInt64, limit: UInt64) -> InvalidEntryReason? {
        if value & clusterMask != 0 { return .unaligned }
        if value < headerAreaSizeBytes { return .insideHeaderArea }
        if value >= limit { return .pastEndOfFile }
        return nil
    }
}
