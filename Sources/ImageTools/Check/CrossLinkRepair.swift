import BlockStorage
import QEDEngine
import QEDFormat

/// Gives every owner of a shared cluster a cluster of its own: the first keeps it, each further one gets a copy at the
/// end of the file.
///
/// Which owner the content belonged to nobody can tell; afterwards each has it, and none can damage another. A copy is
/// durable before the entry that names it is written, so at a power cut an entry names the shared cluster or the copy.
struct CrossLinkRepair<S: Storage>: ~Copyable {
    let structure: ImageStructure<S>
    private let buffer = PageBuffer(byteCount: 1 << 20)
    private var endFileOffset: UInt64
    private var owners: ClusterOwnership

    struct Outcome: Sendable {
        var separatedClusters: UInt64 = 0
        var fileSizeBytes: UInt64 = 0
    }

    init(_ structure: ImageStructure<S>) throws(ImageOpenError) {
        self.structure = structure
        endFileOffset = structure.bounds.endOfClustersFileOffset
        owners = try structure.noOwners()
    }

    mutating func run() async throws(StorageError) -> Outcome {
        var outcome = Outcome()
        let geometry = structure.geometry
        let bounds = structure.bounds
        claim(structure.header.l1TableFileOffset, clusters: geometry.tableSizeClusters)
        var l1 = try await structure.readL1()

        // Tables first: what they share with data is the data's to give up.
        var moved: [Int] = []
        for (index, value) in l1.enumerated() {
            guard case .allocated = bounds.l1Entry(value) else { continue }
            let shared = claim(value, clusters: geometry.tableSizeClusters)
            guard shared > 0 else { continue }
            l1[index] = try await copyToEnd(value, clusters: geometry.tableSizeClusters)
            outcome.separatedClusters += shared
            moved.append(index)
        }
        if !moved.isEmpty { try await structure.storage.sync() }
        for index in moved {
            try await structure.writeEntry(
                l1[index], at: structure.header.l1TableFileOffset + UInt64(index * 8))
        }

        let entryBuffer = PageBuffer(byteCount: structure.tablePieceBytes)
        for (index, value) in l1.enumerated() where value != L2Entry.unallocatedValue {
            // A table that was copied lies behind what `bounds` knows.
            if case .invalid = bounds.l1Entry(value), !moved.contains(index) { continue }
            var done: UInt64 = 0
            while done < geometry.tableSizeBytes {
                let pieceBytes = entryBuffer.byteCount
                try await StructureScan.readTable(
                    structure.storage, into: entryBuffer.address, byteCount: pieceBytes, at: value + done)
                let entries = entryBuffer.address.assumingMemoryBound(to: UInt64.self)
                var changed: [Int] = []
                for position in 0..<(pieceBytes / 8) {
                    let entry = UInt64(littleEndian: entries[position])
                    guard case .allocated(let fileOffset) = bounds.l2Entry(entry), claim(fileOffset, clusters: 1) > 0
                    else { continue }
                    entries[position] = try await copyToEnd(fileOffset, clusters: 1).littleEndian
                    outcome.separatedClusters += 1
                    changed.append(position)
                }
                if !changed.isEmpty { try await structure.storage.sync() }
                for position in changed {
                    try await structure.writeEntries(
                        position...position, of: entryBuffer.address, at: value + done)
                }
                done += UInt64(pieceBytes)
            }
        }
        try await structure.storage.sync()
        outcome.fileSizeBytes = max(endFileOffset, structure.fileSizeBytes)
        return outcome
    }

    @discardableResult
    private mutating func claim(_ fileOffset: UInt64, clusters: UInt64) -> UInt64 {
        owners.claim(first: fileOffset >> structure.geometry.clusterShift, count: clusters)
    }

    private mutating func copyToEnd(_ source: UInt64, clusters: UInt64) async throws(StorageError) -> UInt64 {
        let destination = endFileOffset
        let byteCount = clusters << structure.geometry.clusterShift
        try await structure.copy(
            from: source, to: destination, byteCount: byteCount, through: buffer.address, bufferBytes: buffer.byteCount)
        endFileOffset += byteCount
        return destination
    }
}
