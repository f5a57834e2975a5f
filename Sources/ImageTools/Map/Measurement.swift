import QEDEngine
import QEDFormat

/// How much space a disk would take in a new file.
public struct Measurement: Sendable, Equatable {
    /// With the data it has now, and once every cluster has been written.
    public var requiredBytes: UInt64
    public var fullyAllocatedBytes: UInt64

    /// A raw file: its length, however much of it is holes.
    public init(rawSizeBytes sizeBytes: UInt64) {
        requiredBytes = sizeBytes
        fullyAllocatedBytes = sizeBytes
    }

    /// An image of `sizeBytes`, with nothing in it.
    /// - Throws: `imageSizeTooLarge`, where the geometry cannot have such an image.
    public init(qedSizeBytes sizeBytes: UInt64, geometry: QEDGeometry) throws(QEDFormatError) {
        self = try Measurement(qedSizeBytes: sizeBytes, geometry: geometry, clusters: 0, tables: 0)
    }

    /// An image that is converted from `map`: each cluster that has data, and the tables that name them.
    public init(converting map: DiskMap, to geometry: QEDGeometry) throws {
        var clusters: UInt64 = 0
        var tables: UInt64 = 0
        // The first cluster and table that have not been counted.
        var nextCluster: UInt64 = 0
        var nextTable: UInt64 = 0
        try map.forEachExtent { extent in
            guard extent.kind == .data else { return }
            let firstCluster = max(extent.start >> geometry.clusterShift, nextCluster)
            let endCluster = ((extent.end - 1) >> geometry.clusterShift) + 1
            clusters += endCluster > firstCluster ? endCluster - firstCluster : 0
            nextCluster = max(nextCluster, endCluster)
            let firstTable = max(extent.start >> geometry.l1Shift, nextTable)
            let endTable = ((extent.end - 1) >> geometry.l1Shift) + 1
            tables += endTable > firstTable ? endTable - firstTable : 0
            nextTable = max(nextTable, endTable)
        }
        self = try Measurement(qedSizeBytes: map.sizeBytes, geometry: geometry, clusters: clusters, tables: tables)
    }

    private init(
        qedSizeBytes sizeBytes: UInt64, geometry: QEDGeometry, clusters: UInt64, tables: UInt64
    ) throws(QEDFormatError) {
        // The header of such an image is what knows the limits.
        let sector = QEDLimits.sectorSizeBytes
        guard sizeBytes <= geometry.maximumImageSizeBytes else {
            throw .imageSizeTooLarge(bytes: sizeBytes, maximumBytes: geometry.maximumImageSizeBytes)
        }
        let header = try QEDHeader(
            newImageOfSizeBytes: (sizeBytes + sector - 1) / sector * sector, geometry: geometry)
        let fixedBytes = header.headerAreaSizeBytes + geometry.tableSizeBytes
        let allClusters = (header.imageSizeBytes + geometry.clusterMask) >> geometry.clusterShift
        let allTables = UInt64(geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes))
        requiredBytes = fixedBytes + tables * geometry.tableSizeBytes + clusters << geometry.clusterShift
        fullyAllocatedBytes = fixedBytes + allTables * geometry.tableSizeBytes + allClusters << geometry.clusterShift
    }
}
