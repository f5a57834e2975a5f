import BlockStorage
import QEDEngine
import QEDFormat

/// One round of a compaction: what lies behind a cut moves in front of it, as far as there is room.
final class CompactionRound<S: Storage>: @unchecked Sendable {
    // SAFETY: all of it runs in one task.
    private let structure: ImageStructure<S>
    private let geometry: QEDGeometry
    private let progress: (@Sendable (Double) -> Void)?
    /// Number of the first cluster that is to be given up.
    private let cut: UInt64
    /// No cluster in front of this one is free any more.
    private var nextFree: UInt64
    /// Clusters that tables have taken in this round.
    private var taken: Set<UInt64> = []
    private let buffer = PageBuffer(byteCount: 1 << 20)
    private var moved: UInt64 = 0
    private var holes = TableHoles()

    init(_ structure: ImageStructure<S>, cut: UInt64, progress: (@Sendable (Double) -> Void)?) {
        self.structure = structure
        self.progress = progress
        geometry = structure.geometry
        self.cut = cut
        nextFree = structure.header.headerSizeClusters
    }

    /// Moves tables, then data.
    /// - Returns: how many clusters have found a new place.
    func run(_ owners: borrowing ClusterOwnership) async throws(StorageError) -> UInt64 {
        var l1 = try await structure.readL1()
        try await moveTables(&l1, owners)
        try await moveData(l1, owners)
        return moved
    }

    /// Moves data alone.
    func runForData(_ owners: borrowing ClusterOwnership) async throws(StorageError) -> UInt64 {
        try await moveData(try await structure.readL1(), owners)
        return moved
    }

    /// Moves every table that lies behind a free cluster to the end of the file, so that what is in front of it can
    /// become one piece.
    /// - Returns: how many tables, and the length that the file has now.
    func moveTablesAway(
        _ owners: borrowing ClusterOwnership
    ) async throws(StorageError) -> (tables: UInt64, fileSizeBytes: UInt64) {
        guard let hole = owners.firstUnowned(from: structure.header.headerSizeClusters) else {
            return (0, structure.fileSizeBytes)
        }
        var l1 = try await structure.readL1()
        var end = structure.bounds.endOfClustersFileOffset
        var changed: [Int] = []
        for index in l1.indices where l1[index] >> geometry.clusterShift >= hole.lowerBound {
            try await copyTable(index, to: end, &l1)
            end += geometry.tableSizeBytes
            changed.append(index)
        }
        try await link(changed, l1)
        return (UInt64(changed.count), max(end, structure.fileSizeBytes))
    }

    private func moveTables(_ l1: inout [UInt64], _ owners: borrowing ClusterOwnership) async throws(StorageError) {
        let clusters = geometry.tableSizeClusters
        var search = structure.header.headerSizeClusters
        var changed: [Int] = []
        // The last ones first: it is they that hold the end of the file.
        for index in l1.indices.sorted(by: { l1[$0] > l1[$1] }) {
            let place = l1[index] >> geometry.clusterShift
            guard place + clusters > cut else { break }
            guard let run = freeRun(of: clusters, from: search, below: place, owners) else { break }
            try await copyTable(index, to: run << geometry.clusterShift, &l1)
            for cluster in run..<(run + clusters) { taken.insert(cluster) }
            search = run + clusters
            changed.append(index)
            moved += clusters
        }
        try await link(changed, l1)
    }

    private func copyTable(_ l1Index: Int, to destination: UInt64, _ l1: inout [UInt64]) async throws(StorageError) {
        try await structure.copy(
            from: l1[l1Index], to: destination, byteCount: geometry.tableSizeBytes, through: buffer.address,
            bufferBytes: buffer.byteCount)
        l1[l1Index] = destination
    }

    /// Makes copies of tables durable, then the entries that name them.
    private func link(_ changed: [Int], _ l1: [UInt64]) async throws(StorageError) {
        guard !changed.isEmpty else { return }
        try await structure.storage.sync()
        for index in changed {
            try await structure.writeEntry(l1[index], at: structure.header.l1TableFileOffset + UInt64(index * 8))
        }
        // Their entries are changed in the new place from here on, so nothing may go back to the old one.
        try await structure.storage.sync()
    }

    /// Free clusters that lie together, in front of `limit`.
    private func freeRun(
        of clusters: UInt64, from start: UInt64, below limit: UInt64, _ owners: borrowing ClusterOwnership
    ) -> UInt64? {
        var position = start
        while let run = owners.firstUnowned(from: position), run.lowerBound + clusters <= limit {
            if UInt64(run.count) >= clusters { return run.lowerBound }
            position = run.upperBound
        }
        return nil
    }

    private func moveData(_ l1: [UInt64], _ owners: borrowing ClusterOwnership) async throws(StorageError) {
        let tables = l1.indices.filter { l1[$0] != L2Entry.unallocatedValue }
        for (position, index) in tables.enumerated() {
            try await moveData(of: index, at: l1[index], owners)
            progress?(Double(position + 1) / Double(tables.count))
        }
    }

    private func moveData(
        of l1Index: Int, at tableFileOffset: UInt64, _ owners: borrowing ClusterOwnership
    ) async throws(StorageError) {
        let table = PageBuffer(byteCount: structure.tablePieceBytes)
        let structure = structure
        try await structure.visitTable(
            l1Index, at: tableFileOffset, through: table.address, pieceBytes: table.byteCount, holes: &holes
        ) { (entries, pieceFileOffset, _) async throws(StorageError) in
            var changed: [Int] = []
            for index in entries.indices {
                let value = UInt64(littleEndian: entries[index])
                guard value > L2Entry.zeroValue, value >> geometry.clusterShift >= cut,
                    let place = takeFreeCluster(owners)
                else { continue }
                try await copyCluster(from: value, to: place << geometry.clusterShift)
                entries[index] = (place << geometry.clusterShift).littleEndian
                changed.append(index)
                moved += 1
            }
            if !changed.isEmpty { try await structure.storage.sync() }
            for index in changed {
                try await structure.writeEntries(index...index, of: table.address, at: pieceFileOffset)
            }
        }
    }

    /// A free cluster in front of the cut.
    private func takeFreeCluster(_ owners: borrowing ClusterOwnership) -> UInt64? {
        while let run = owners.firstUnowned(from: nextFree), run.lowerBound < cut {
            nextFree = run.lowerBound + 1
            if !taken.contains(run.lowerBound) { return run.lowerBound }
        }
        return nil
    }

    /// Copies a cluster; one of zeros takes no space in its new place.
    private func copyCluster(from source: UInt64, to destination: UInt64) async throws(StorageError) {
        var done: UInt64 = 0
        while done < geometry.clusterSizeBytes {
            let piece = Int(min(UInt64(buffer.byteCount), geometry.clusterSizeBytes - done))
            try await structure.storage.readSectors(into: buffer.address, byteCount: piece, fileOffset: source + done)
            if Zeros.fill(buffer.address, count: piece) {
                try await structure.storage.zero(
                    fileOffset: destination + done, byteCount: UInt64(piece), through: buffer)
            } else {
                try await structure.storage.writeFully(
                    from: buffer.address, byteCount: piece, fileOffset: destination + done)
            }
            done += UInt64(piece)
        }
    }
}
