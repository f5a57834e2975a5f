import BlockStorage
import QEDFormat

/// Goes through an image's L1 table, gives each table its clusters, and tells which pieces of the tables are to be read.
struct TableWalk<S: Storage>: ~Copyable {
    struct Piece {
        var fileOffset: UInt64
        var byteCount: Int
    }

    private let storage: S
    private let header: QEDHeader
    private let bounds: TableEntryBounds
    /// Whether 0 is written over entries of the L1 table that cannot be right.
    private let repairs: Bool
    // SAFETY: allocated here with `TablePiece.largestBytes`, freed in deinit.
    private let l1: UnsafeMutableRawPointer
    /// The part of the L1 table that is in memory, and the entry of it that comes next.
    private var l1Start: UInt64 = 0
    private var l1Bytes = 0
    private var index = 0
    private var changedPages: [Int] = []
    /// The table of the entry before, and what has been told of it.
    private var table: UInt64?
    private var done: UInt64 = 0

    init(_ storage: S, header: QEDHeader, bounds: TableEntryBounds, repairs: Bool) {
        self.storage = storage
        self.header = header
        self.bounds = bounds
        self.repairs = repairs
        l1 = .allocate(byteCount: TablePiece.largestBytes, alignment: 4096)
    }

    deinit { l1.deallocate() }

    /// The next piece of a table; nil when there is none any more.
    mutating func next(
        _ owners: inout ClusterOwnership, _ scan: inout StructureScan
    ) async throws(StorageError) -> Piece? {
        let geometry = header.geometry
        while true {
            if let table {
                let place = scan.holes.nextPiece(
                    storage, ofTableAt: table, geometry, from: done, pieceBytes: UInt64(TablePiece.largestBytes))
                if let place {
                    let byteCount = min(UInt64(TablePiece.largestBytes), geometry.tableSizeBytes - place)
                    done = place + byteCount
                    return Piece(fileOffset: table + place, byteCount: Int(byteCount))
                }
                self.table = nil
            }
            precondition(index * 8 <= l1Bytes, "past the part of the L1 table that is in memory")
            if index * 8 == l1Bytes {
                try await writeChanges()
                guard try await readOn() else { return nil }
            }
            take(&owners, &scan)
        }
    }

    /// Takes the next entry of the L1 table.
    private mutating func take(_ owners: inout ClusterOwnership, _ scan: inout StructureScan) {
        precondition(table == nil && index * 8 < l1Bytes, "an entry is taken before the last one's table was told")
        let entries = l1.assumingMemoryBound(to: UInt64.self)
        defer { index += 1 }
        switch bounds.l1Entry(UInt64(littleEndian: entries[index])) {
        case .unallocated: return
        case .invalid:
            scan.invalidEntries += 1
            scan.invalidTables += 1
            entries[index] = 0
            let page = index / QEDGeometry.entriesPerL2Page
            if changedPages.last != page { changedPages.append(page) }
        case .allocated(let tableFileOffset):
            let first = tableFileOffset >> header.geometry.clusterShift
            let taken = owners.claim(first: first, count: header.geometry.tableSizeClusters)
            scan.crossLinkedClusters += taken
            // A table that shares its clusters is no table to trust the entries of.
            if taken > 0 { return }
            table = tableFileOffset
            done = 0
        }
    }

    /// - Returns: false at the end of the L1 table.
    private mutating func readOn() async throws(StorageError) -> Bool {
        precondition(changedPages.isEmpty, "a part of the L1 table goes whose changes were not written")
        l1Start += UInt64(l1Bytes)
        guard l1Start < header.geometry.tableSizeBytes else { return false }
        l1Bytes = Int(min(UInt64(TablePiece.largestBytes), header.geometry.tableSizeBytes - l1Start))
        index = 0
        try await storage.readSectors(into: l1, byteCount: l1Bytes, fileOffset: header.l1TableFileOffset + l1Start)
        return true
    }

    private mutating func writeChanges() async throws(StorageError) {
        if repairs {
            for page in changedPages {
                let offset = page * QEDGeometry.l2PageSizeBytes
                precondition(offset < l1Bytes, "a page outside the part of the L1 table that is in memory")
                try await storage.writeFully(
                    from: l1 + offset, byteCount: QEDGeometry.l2PageSizeBytes,
                    fileOffset: header.l1TableFileOffset + l1Start + UInt64(offset))
            }
        }
        changedPages.removeAll()
    }
}
