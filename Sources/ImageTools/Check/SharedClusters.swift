import BlockStorage
import QEDEngine
import QEDFormat

/// The clusters of an image that have several owners, found without changing anything: every table is looked into, those
/// that share their clusters too.
///
/// Memory: two bits per cluster, and the L1 table.
final class SharedClusters<S: Storage>: @unchecked Sendable {
    // SAFETY: one task uses it.
    private let structure: ImageStructure<S>
    private var owners: ClusterOwnership
    private var shared: ClusterOwnership
    /// How many owners there are besides the first of each cluster: what it takes to separate them all. A table that is
    /// named many times counts with all that it names each time, so this can be more than any disk holds.
    private(set) var furtherOwners: UInt64 = 0

    init(_ structure: ImageStructure<S>) throws(ImageOpenError) {
        self.structure = structure
        owners = try structure.noOwners()
        shared = try structure.noOwners()
    }

    /// Whether one of the clusters of the table at `fileOffset` has another owner.
    func hasTable(at fileOffset: UInt64) -> Bool {
        let first = fileOffset >> structure.geometry.clusterShift
        return shared.ownedCount(in: first..<(first + structure.geometry.tableSizeClusters)) > 0
    }

    func find() async throws(StorageError) {
        let geometry = structure.geometry
        let bounds = structure.bounds
        claim(structure.header.l1TableFileOffset, clusters: geometry.tableSizeClusters, times: 1)
        var tables: [UInt64] = []
        for value in try await structure.readL1() {
            guard case .allocated = bounds.l1Entry(value) else { continue }
            claim(value, clusters: geometry.tableSizeClusters, times: 1)
            tables.append(value)
        }
        // A table is read once, however often it is named.
        tables.sort()
        let buffer = PageBuffer(byteCount: structure.tablePieceBytes)
        var holes = TableHoles()
        var index = 0
        while index < tables.count {
            let table = tables[index]
            let start = index
            while index < tables.count && tables[index] == table { index += 1 }
            let times = UInt64(index - start)
            // By any of the entries that name it: where the device has its clusters does not matter here.
            try await structure.visitTable(
                0, at: table, through: buffer.address, pieceBytes: buffer.byteCount, holes: &holes
            ) { entries, _, _ in
                for entry in entries {
                    if case .allocated(let fileOffset) = bounds.l2Entry(UInt64(littleEndian: entry)) {
                        claim(fileOffset, clusters: 1, times: times)
                    }
                }
            }
        }
    }

    private func claim(_ fileOffset: UInt64, clusters: UInt64, times: UInt64) {
        let first = fileOffset >> structure.geometry.clusterShift
        for cluster in first..<(first + clusters) {
            let further = owners.claim(one: cluster) + times - 1
            if further > 0 { _ = shared.claim(one: cluster) }
            let (sum, overflow) = furtherOwners.addingReportingOverflow(further)
            furtherOwners = overflow ? .max : sum
        }
    }
}
