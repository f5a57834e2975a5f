import BlockStorage
import QEDEngine
import QEDFormat

/// Gives every owner of a shared cluster a cluster of its own: the first keeps it, each further one gets a copy at the
/// end of the file.
///
/// Which owner the content belonged to nobody can tell; afterwards each has it, and none can damage another. A copy is
/// durable before the entry that names it is written, so at a power cut an entry names the shared cluster or the copy.
///
/// Copies make the file longer, and what an entry names behind the old end would be one of them. So the tables that the
/// check has not judged, because they were shared, are judged here by the old end. They come last: as long as one is
/// somebody's data too, its bytes are not touched.
struct CrossLinkRepair<S: Storage>: ~Copyable {
    let structure: ImageStructure<S>
    private let buffer = PageBuffer(byteCount: 1 << 20)
    private let unjudgedTables: Set<Int>
    private var endFileOffset: UInt64
    private var owners: ClusterOwnership
    private var outcome = Outcome()

    struct Outcome: Sendable {
        var separatedClusters: UInt64 = 0
        /// Entries that could not be right.
        var droppedEntries: UInt64 = 0
        /// The first of them.
        var droppedList: [InvalidEntry] = []
        var fileSizeBytes: UInt64 = 0
    }

    /// - Parameter unjudgedTables: L1 indexes of the tables that may still hold entries that cannot be right.
    init(_ structure: ImageStructure<S>, unjudgedTables: [Int]) throws(ImageOpenError) {
        self.structure = structure
        self.unjudgedTables = Set(unjudgedTables)
        endFileOffset = structure.bounds.endOfClustersFileOffset
        owners = try structure.noOwners()
    }

    mutating func run() async throws(StorageError) -> Outcome {
        let geometry = structure.geometry
        let bounds = structure.bounds
        claim(structure.header.l1TableFileOffset, clusters: geometry.tableSizeClusters)
        var l1 = try await structure.readL1()

        // Tables first: what they share with data is the data's to give up.
        var moved: Set<Int> = []
        for (index, value) in l1.enumerated() {
            guard case .allocated = bounds.l1Entry(value) else { continue }
            let shared = claim(value, clusters: geometry.tableSizeClusters)
            guard shared > 0 else { continue }
            l1[index] = try await copyToEnd(value, clusters: geometry.tableSizeClusters)
            outcome.separatedClusters += shared
            moved.insert(index)
        }
        if !moved.isEmpty { try await structure.storage.sync() }
        for index in moved.sorted() {
            try await structure.writeEntry(
                l1[index], at: structure.header.l1TableFileOffset + UInt64(index * 8))
        }

        let entryBuffer = PageBuffer(byteCount: structure.tablePieceBytes)
        let used = l1.indices.filter { index in
            // A table that was copied lies behind what `bounds` knows.
            if case .allocated = bounds.l1Entry(l1[index]) { true } else { moved.contains(index) }
        }
        for comesLast in [false, true] {
            for index in used where unjudgedTables.contains(index) == comesLast {
                try await separate(index, at: l1[index], entryBuffer)
            }
        }
        try await structure.storage.sync()
        outcome.fileSizeBytes = max(endFileOffset, structure.fileSizeBytes)
        return outcome
    }

    /// Gives the entries of a table clusters of their own, and drops those that cannot be right.
    private mutating func separate(
        _ l1Index: Int, at tableFileOffset: UInt64, _ entryBuffer: PageBuffer
    ) async throws(StorageError) {
        let geometry = structure.geometry
        let bounds = structure.bounds
        var done: UInt64 = 0
        while done < geometry.tableSizeBytes {
            let pieceBytes = entryBuffer.byteCount
            try await StructureScan.readTable(
                structure.storage, into: entryBuffer.address, byteCount: pieceBytes, at: tableFileOffset + done)
            let entries = entryBuffer.address.assumingMemoryBound(to: UInt64.self)
            var changed: [Int] = []
            for position in 0..<(pieceBytes / 8) {
                let entry = UInt64(littleEndian: entries[position])
                switch bounds.l2Entry(entry) {
                case .unallocated, .zero: continue
                case .allocated(let fileOffset):
                    guard claim(fileOffset, clusters: 1) > 0 else { continue }
                    entries[position] = try await copyToEnd(fileOffset, clusters: 1).littleEndian
                    outcome.separatedClusters += 1
                case .invalid(let reason):
                    let deviceOffset =
                        (UInt64(l1Index) << geometry.l1Shift) + (done / 8 + UInt64(position)) << geometry.clusterShift
                    noteDropped(entry, reason, deviceOffset: deviceOffset)
                    entries[position] = 0
                }
                changed.append(position)
            }
            if !changed.isEmpty { try await structure.storage.sync() }
            for position in changed {
                try await structure.writeEntries(
                    position...position, of: entryBuffer.address, at: tableFileOffset + done)
            }
            done += UInt64(pieceBytes)
        }
    }

    private mutating func noteDropped(_ value: UInt64, _ reason: InvalidEntryReason, deviceOffset: UInt64) {
        outcome.droppedEntries += 1
        guard outcome.droppedList.count < CheckReport.listLimit else { return }
        let imageSize = structure.header.imageSizeBytes
        let (end, overflow) = deviceOffset.addingReportingOverflow(structure.geometry.clusterSizeBytes)
        let range = min(deviceOffset, imageSize)..<min(overflow ? .max : end, imageSize)
        outcome.droppedList.append(InvalidEntry(deviceRange: range, isL1: false, value: value, reason: reason))
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
