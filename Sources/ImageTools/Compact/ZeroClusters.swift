import BlockStorage
import QEDEngine
import QEDFormat

/// Gives up the clusters of an image that hold nothing but zeros, as a guest leaves them that overwrites what it deletes.
///
/// Their entries say instead that there is nothing, or, over a backing file, that there are zeros. They are durable before the
/// clusters are anybody else's: at a power cut an entry names its cluster, which still holds zeros, or none.
struct ZeroClusters<S: Storage> {
    private let structure: ImageStructure<S>
    private let progress: (@Sendable (Double) -> Void)?
    private let buffer = PageBuffer(byteCount: 1 << 20)

    /// - Parameter structure: of an image that is sound, so that each cluster has one owner.
    init(_ structure: ImageStructure<S>, progress: (@Sendable (Double) -> Void)?) {
        self.structure = structure
        self.progress = progress
    }

    /// Reads all data; blocks until the entries are durable. The clusters are leaked then.
    /// - Returns: how many clusters that were.
    func free() async throws(StorageError) -> UInt64 {
        let l1 = try await structure.readL1()
        let tables = l1.indices.filter { l1[$0] != L2Entry.unallocatedValue }
        let nothing = structure.header.backingFileNameRange == nil ? L2Entry.unallocatedValue : L2Entry.zeroValue
        var freed: UInt64 = 0
        var holes = TableHoles()
        let table = PageBuffer(byteCount: structure.tablePieceBytes)
        for (position, index) in tables.enumerated() {
            try await structure.visitTable(
                index, at: l1[index], through: table.address, pieceBytes: table.byteCount, holes: &holes
            ) { (entries, pieceFileOffset, _) async throws(StorageError) in
                var changed: ClosedRange<Int>?
                for entry in entries.indices {
                    let value = UInt64(littleEndian: entries[entry])
                    guard value > L2Entry.zeroValue, try await isZero(clusterAt: value) else { continue }
                    entries[entry] = nothing.littleEndian
                    changed = (changed?.lowerBound ?? entry)...entry
                    freed += 1
                }
                // Sectors between those that have changed are written as they were.
                if let changed { try await structure.writeEntries(changed, of: table.address, at: pieceFileOffset) }
            }
            progress?(Double(position + 1) / Double(tables.count))
        }
        if freed > 0 { try await structure.storage.sync() }
        return freed
    }

    private func isZero(clusterAt fileOffset: UInt64) async throws(StorageError) -> Bool {
        var done: UInt64 = 0
        while done < structure.geometry.clusterSizeBytes {
            let piece = Int(min(UInt64(buffer.byteCount), structure.geometry.clusterSizeBytes - done))
            try await structure.storage.readSectors(into: buffer.address, byteCount: piece, fileOffset: fileOffset + done)
            guard Zeros.fill(buffer.address, count: piece) else { return false }
            done += UInt64(piece)
        }
        return true
    }
}
