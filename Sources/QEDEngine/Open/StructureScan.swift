import BlockStorage
import QEDFormat
import SystemPackage

/// One pass over all tables of an image: is every cluster owned once, and does every entry point where it may?
package struct StructureScan {
    /// Entries that cannot be right: unaligned, in the header area or past the end.
    var invalidEntries: UInt64 = 0
    /// Those of them that would name a table.
    var invalidTables: UInt64 = 0
    /// Clusters with more than one owner: which of them holds its data nobody can tell.
    var crossLinkedClusters: UInt64 = 0
    /// File offset of the end of the last cluster that is in use, as far as the tables were read.
    var endOfReferenced: UInt64 = 0
    /// What was not read of the tables.
    var holes = TableHoles()

    /// The tables are read in pieces of this size.
    private static let pieceBytes = 1 << 20

    /// Scans the image, and with `repairs` writes 0 over every entry that cannot be right; the caller syncs.
    ///
    /// An entry past the end of the file is what a crash leaves of an allocation that no flush covered: dropping it
    /// loses nothing that was promised.
    static func run<S: Storage>(
        _ storage: S, header: QEDHeader, fileSizeBytes: UInt64, repairs: Bool
    ) async throws(ImageOpenError) -> StructureScan {
        var owners = try noOwners(header: header, fileSizeBytes: fileSizeBytes)
        return try await run(
            storage, header: header, fileSizeBytes: fileSizeBytes, repairs: repairs, owners: &owners)
    }

    /// For a file none of whose clusters is known to have an owner.
    static func noOwners(header: QEDHeader, fileSizeBytes: UInt64) throws(ImageOpenError) -> ClusterOwnership {
        let bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        let clusters = bounds.endOfClustersFileOffset >> header.geometry.clusterShift
        guard let owners = ClusterOwnership.make(clusterCount: clusters) else {
            throw .tooLargeToCheck(fileSizeBytes: fileSizeBytes)
        }
        return owners
    }

    /// The same, and leaves in `owners` which clusters are in use.
    static func run<S: Storage>(
        _ storage: S, header: QEDHeader, fileSizeBytes: UInt64, repairs: Bool, owners: inout ClusterOwnership
    ) async throws(ImageOpenError) -> StructureScan {
        let geometry = header.geometry
        let bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        let clusters = owners.clusterCount
        var scan = StructureScan()
        let headerClusters = min(header.headerSizeClusters, clusters)
        _ = owners.claim(first: 0, count: headerClusters)
        scan.crossLinkedClusters += owners.claim(
            first: header.l1TableFileOffset >> geometry.clusterShift, count: geometry.tableSizeClusters)

        let buffer = UnsafeMutableRawPointer.allocate(byteCount: pieceBytes, alignment: 4096)
        let l1Buffer = UnsafeMutableRawPointer.allocate(byteCount: QEDGeometry.l2PageSizeBytes, alignment: 4096)
        defer {
            buffer.deallocate()
            l1Buffer.deallocate()
        }
        do throws(StorageError) {
            let l1Pages = Int(geometry.tableSizeBytes) / QEDGeometry.l2PageSizeBytes
            for l1Page in 0..<l1Pages {
                let l1FileOffset = header.l1TableFileOffset + UInt64(l1Page * QEDGeometry.l2PageSizeBytes)
                try await readTable(storage, into: l1Buffer, byteCount: QEDGeometry.l2PageSizeBytes, at: l1FileOffset)
                let l1 = l1Buffer.assumingMemoryBound(to: UInt64.self)
                var changed = false
                for index in 0..<QEDGeometry.entriesPerL2Page {
                    switch bounds.l1Entry(UInt64(littleEndian: l1[index])) {
                    case .unallocated: continue
                    case .invalid:
                        scan.invalidEntries += 1
                        scan.invalidTables += 1
                        l1[index] = 0
                        changed = true
                    case .allocated(let tableFileOffset):
                        let first = tableFileOffset >> geometry.clusterShift
                        let taken = owners.claim(first: first, count: geometry.tableSizeClusters)
                        scan.crossLinkedClusters += taken
                        // A table that shares its clusters is no table to trust the entries of.
                        if taken > 0 { continue }
                        try await scanTable(
                            storage, at: tableFileOffset, geometry, bounds, buffer, repairs: repairs, &owners, &scan)
                    }
                }
                if changed && repairs {
                    try await storage.writeFully(
                        from: l1Buffer, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: l1FileOffset)
                }
            }
        } catch {
            throw .storage(error)
        }
        if isSabotaged(.overlookCrossLinks) { scan.crossLinkedClusters = 0 }
        scan.endOfReferenced = owners.end << geometry.clusterShift
        return scan
    }

    private static func scanTable<S: Storage>(
        _ storage: S, at tableFileOffset: UInt64, _ geometry: QEDGeometry, _ bounds: TableEntryBounds,
        _ buffer: UnsafeMutableRawPointer, repairs: Bool, _ owners: inout ClusterOwnership, _ scan: inout StructureScan
    ) async throws(StorageError) {
        var done: UInt64 = 0
        while let place = scan.holes.nextPiece(
            storage, ofTableAt: tableFileOffset, geometry, from: done, pieceBytes: UInt64(pieceBytes))
        {
            done = place
            let piece = Int(min(UInt64(pieceBytes), geometry.tableSizeBytes - done))
            try await readTable(storage, into: buffer, byteCount: piece, at: tableFileOffset + done)
            let entries = buffer.assumingMemoryBound(to: UInt64.self)
            var changedPages: [Int] = []
            for index in 0..<(piece / 8) where entries[index] != 0 {
                switch bounds.l2Entry(UInt64(littleEndian: entries[index])) {
                case .unallocated, .zero: continue
                case .allocated(let fileOffset):
                    scan.crossLinkedClusters += owners.claim(first: fileOffset >> geometry.clusterShift, count: 1)
                case .invalid:
                    scan.invalidEntries += 1
                    entries[index] = 0
                    let page = index / QEDGeometry.entriesPerL2Page
                    if changedPages.last != page { changedPages.append(page) }
                }
            }
            if repairs {
                for page in changedPages {
                    let offset = page * QEDGeometry.l2PageSizeBytes
                    try await storage.writeFully(
                        from: buffer + offset, byteCount: QEDGeometry.l2PageSizeBytes,
                        fileOffset: tableFileOffset + done + UInt64(offset))
                }
            }
            done += UInt64(piece)
        }
    }

    /// Reads a piece of a table, which is whole sectors.
    package static func readTable<S: Storage>(
        _ storage: S, into buffer: UnsafeMutableRawPointer, byteCount: Int, at fileOffset: UInt64
    ) async throws(StorageError) {
        try await storage.readSectors(into: buffer, byteCount: byteCount, fileOffset: fileOffset)
    }
}
