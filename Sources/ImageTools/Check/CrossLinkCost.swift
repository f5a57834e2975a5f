import BlockStorage
import QEDEngine
import QEDFormat

/// How many clusters the separation of cross-links would add to an image: found out without changing anything.
///
/// A table that is named many times doubles what it names each time, so a few sectors can ask for more copies than any
/// disk holds. Nobody's data looks like that; the count ends where it is clear.
struct CrossLinkCost<S: Storage>: ~Copyable {
    let structure: ImageStructure<S>
    private var owners: ClusterOwnership

    init(_ structure: ImageStructure<S>) throws(ImageOpenError) {
        self.structure = structure
        owners = try structure.noOwners()
    }

    /// - Returns: the clusters that `CrossLinkRepair` would copy; nil where there are more than `limit`.
    mutating func run(limit: UInt64) async throws(StorageError) -> UInt64? {
        let geometry = structure.geometry
        let bounds = structure.bounds
        var copies: UInt64 = 0
        claim(structure.header.l1TableFileOffset, clusters: geometry.tableSizeClusters)
        var tables: [UInt64] = []
        for value in try await structure.readL1() {
            guard case .allocated = bounds.l1Entry(value) else { continue }
            if claim(value, clusters: geometry.tableSizeClusters) > 0 { copies += geometry.tableSizeClusters }
            guard copies <= limit else { return nil }
            tables.append(value)
        }
        let buffer = PageBuffer(byteCount: structure.tablePieceBytes)
        for table in tables {
            var done: UInt64 = 0
            while done < geometry.tableSizeBytes {
                try await StructureScan.readTable(
                    structure.storage, into: buffer.address, byteCount: buffer.byteCount, at: table + done)
                let entries = buffer.address.assumingMemoryBound(to: UInt64.self)
                for position in 0..<(buffer.byteCount / 8) {
                    if case .allocated(let fileOffset) = bounds.l2Entry(UInt64(littleEndian: entries[position])) {
                        copies += claim(fileOffset, clusters: 1)
                    }
                }
                guard copies <= limit else { return nil }
                done += UInt64(buffer.byteCount)
            }
        }
        return copies
    }

    @discardableResult
    private mutating func claim(_ fileOffset: UInt64, clusters: UInt64) -> UInt64 {
        owners.claim(first: fileOffset >> structure.geometry.clusterShift, count: clusters)
    }
}
