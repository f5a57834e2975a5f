import BlockStorage
import QEDEngine
import QEDFormat

/// Gives every owner of a shared cluster a cluster of its own, at the end of the file.
///
/// Which owner the content belonged to nobody can tell; afterwards each has it, and none can damage another. A table that
/// shares a cluster moves, and what it shared stays as it is, for it may be somebody's data. Of several data owners the
/// first keeps the cluster. A copy is durable before the entry that names it is written, so at a power cut an entry names
/// the shared cluster or the copy.
struct CrossLinkRepair<S: Storage>: ~Copyable {
    private let structure: ImageStructure<S>
    private let shared: SharedClusters<S>
    private let bounds: TableEntryBounds
    private let buffer = PageBuffer(byteCount: 1 << 20)
    private let tableBuffer: PageBuffer
    private var endFileOffset: UInt64
    private var owners: ClusterOwnership
    private var holes = TableHoles()
    /// The entries of moved tables that cannot be right. They are left behind: where the file grows, they would come to
    /// name the copies.
    private var dropped = InvalidEntries()

    init(_ structure: ImageStructure<S>, _ shared: SharedClusters<S>) throws(ImageOpenError) {
        self.structure = structure
        self.shared = shared
        bounds = structure.bounds
        tableBuffer = PageBuffer(byteCount: structure.tablePieceBytes)
        endFileOffset = structure.bounds.endOfClustersFileOffset
        owners = try structure.noOwners()
    }

    /// - Returns: the entries that were dropped.
    mutating func run() async throws(StorageError) -> InvalidEntries {
        let header = structure.header
        claim(header.l1TableFileOffset, clusters: structure.geometry.tableSizeClusters)
        var l1 = try await structure.readL1()
        var moved: [Int] = []
        for (index, value) in l1.enumerated() {
            guard case .allocated = bounds.l1Entry(value) else {
                l1[index] = L2Entry.unallocatedValue
                continue
            }
            if shared.hasTable(at: value) {
                l1[index] = try await moveTable(index, from: value)
                moved.append(index)
            } else {
                claim(value, clusters: structure.geometry.tableSizeClusters)
            }
        }
        if !moved.isEmpty { try await structure.storage.sync() }
        for index in moved {
            try await structure.writeEntry(l1[index], at: header.l1TableFileOffset + UInt64(index * 8))
        }
        // From here on no table shares a cluster, so entries can be changed where they are.
        for (index, table) in l1.enumerated() where table != L2Entry.unallocatedValue {
            try await separateData(of: index, at: table)
        }
        try await structure.storage.sync()
        return dropped
    }

    /// Copies a table to the end of the file, without the entries that cannot be right.
    /// - Returns: where it is now.
    private mutating func moveTable(_ l1Index: Int, from source: UInt64) async throws(StorageError) -> UInt64 {
        let geometry = structure.geometry
        let destination = endFileOffset
        var done: UInt64 = 0
        while done < geometry.tableSizeBytes {
            try await structure.storage.readSectors(
                into: tableBuffer.address, byteCount: tableBuffer.byteCount, fileOffset: source + done)
            let entries = tableBuffer.address.assumingMemoryBound(to: UInt64.self)
            for position in 0..<(tableBuffer.byteCount / 8) {
                let value = UInt64(littleEndian: entries[position])
                guard case .invalid(let reason) = bounds.l2Entry(value) else { continue }
                let cluster = UInt64(l1Index) << geometry.tableEntriesShift + done / 8 + UInt64(position)
                dropped.note(l2Entry: value, reason, ofCluster: cluster, structure.header)
                entries[position] = 0
            }
            try await structure.storage.writeFully(
                from: tableBuffer.address, byteCount: tableBuffer.byteCount, fileOffset: destination + done)
            done += UInt64(tableBuffer.byteCount)
        }
        endFileOffset += geometry.tableSizeBytes
        return destination
    }

    private mutating func separateData(of l1Index: Int, at table: UInt64) async throws(StorageError) {
        let (structure, tableBuffer) = (structure, tableBuffer)
        var holes = self.holes
        defer { self.holes = holes }
        try await structure.visitTable(
            l1Index, at: table, through: tableBuffer.address, pieceBytes: tableBuffer.byteCount, holes: &holes
        ) { (entries, pieceFileOffset, _) async throws(StorageError) in
            var changed: [Int] = []
            for position in entries.indices {
                let entry = UInt64(littleEndian: entries[position])
                guard case .allocated(let fileOffset) = bounds.l2Entry(entry), claim(fileOffset, clusters: 1) > 0
                else { continue }
                entries[position] = try await copyToEnd(fileOffset).littleEndian
                changed.append(position)
            }
            if !changed.isEmpty { try await structure.storage.sync() }
            for position in changed {
                try await structure.writeEntries(position...position, of: tableBuffer.address, at: pieceFileOffset)
            }
        }
    }

    @discardableResult
    private mutating func claim(_ fileOffset: UInt64, clusters: UInt64) -> UInt64 {
        owners.claim(first: fileOffset >> structure.geometry.clusterShift, count: clusters)
    }

    private mutating func copyToEnd(_ source: UInt64) async throws(StorageError) -> UInt64 {
        let destination = endFileOffset
        try await structure.copy(
            from: source, to: destination, byteCount: structure.geometry.clusterSizeBytes, through: buffer.address,
            bufferBytes: buffer.byteCount)
        endFileOffset += structure.geometry.clusterSizeBytes
        return destination
    }
}
