import BlockStorage
import QEDEngine
import QEDFormat

/// Finds every owner of clusters that are known to have several.
struct CrossLinkSearch<S: Storage> {
    let structure: ImageStructure<S>

    /// - Parameter clusters: numbers of clusters of the file.
    /// - Returns: a cross-link for each of them, in the order of the file.
    func run(_ clusters: [UInt64]) async throws -> [CrossLink] {
        guard !clusters.isEmpty else { return [] }
        let geometry = structure.geometry
        let bounds = structure.bounds
        var owners: [UInt64: [ClusterOwner]] = [:]
        for cluster in clusters { owners[cluster] = [] }
        func note(_ fileOffset: UInt64, clusters count: UInt64, _ owner: ClusterOwner) {
            for cluster in (fileOffset >> geometry.clusterShift)..<((fileOffset >> geometry.clusterShift) + count)
            where owners[cluster] != nil && (owners[cluster]?.count ?? 0) < CheckReport.listLimit {
                owners[cluster]?.append(owner)
            }
        }

        note(0, clusters: structure.header.headerSizeClusters, .header)
        note(structure.header.l1TableFileOffset, clusters: geometry.tableSizeClusters, .l1Table)
        let l1 = try await structure.readL1()
        for (index, value) in l1.enumerated() {
            if case .allocated = bounds.l1Entry(value) {
                note(value, clusters: geometry.tableSizeClusters, .l2Table(l1Index: index))
            }
        }
        var visited = try structure.noOwners()
        var holes = TableHoles()
        let buffer = PageBuffer(byteCount: structure.tablePieceBytes)
        for (index, value) in l1.enumerated() {
            // A table with two owners would double the owners of all its clusters.
            guard case .allocated = bounds.l1Entry(value), visited.claim(one: value >> geometry.clusterShift) == 0
            else { continue }
            do throws(StorageError) {
                try await structure.visitTable(
                    index, at: value, through: buffer.address, pieceBytes: buffer.byteCount, holes: &holes
                ) { entries, pieceFileOffset, _ in
                    let first = UInt64(index) << geometry.tableEntriesShift + (pieceFileOffset - value) / 8
                    for (position, entry) in entries.enumerated() {
                        guard case .allocated(let fileOffset) = bounds.l2Entry(UInt64(littleEndian: entry)) else {
                            continue
                        }
                        // Tables can have entries for more than 2^64 bytes.
                        let (deviceOffset, overflow) = (first + UInt64(position)).multipliedReportingOverflow(
                            by: geometry.clusterSizeBytes)
                        note(fileOffset, clusters: 1, .data(deviceOffset: overflow ? .max : deviceOffset))
                    }
                }
            } catch {
                // It was counted as unreadable by the pass before.
                continue
            }
        }
        return owners.sorted { $0.key < $1.key }.map {
            CrossLink(fileOffset: $0.key << geometry.clusterShift, owners: $0.value)
        }
    }
}
