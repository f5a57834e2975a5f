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
        precondition(owners.clusterCount == clusters && owners.end == 0, "clusters that are somebody's already")
        return owners
    }

    /// The same, and leaves in `owners` which clusters are in use.
    static func run<S: Storage>(
        _ storage: S, header: QEDHeader, fileSizeBytes: UInt64, repairs: Bool, owners: inout ClusterOwnership
    ) async throws(ImageOpenError) -> StructureScan {
        let geometry = header.geometry
        let bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        var scan = StructureScan()
        let headerClusters = min(header.headerSizeClusters, owners.clusterCount)
        _ = owners.claim(first: 0, count: headerClusters)
        scan.crossLinkedClusters += owners.claim(
            first: header.l1TableFileOffset >> geometry.clusterShift, count: geometry.tableSizeClusters)

        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: TablePiece.limit * TablePiece.largestBytes, alignment: 4096)
        defer { memory.deallocate() }
        var walk = TableWalk(storage, header: header, bounds: bounds, repairs: repairs)
        do throws(StorageError) {
            // Which tables count as theirs must not depend on which read is answered first: so in rounds.
            while true {
                var pieces: [TablePiece] = []
                while pieces.count < TablePiece.limit, let piece = try await walk.next(&owners, &scan) {
                    pieces.append(
                        TablePiece(
                            buffer: memory + pieces.count * TablePiece.largestBytes, byteCount: piece.byteCount,
                            fileOffset: piece.fileOffset))
                }
                if pieces.isEmpty { break }
                try await storage.readSectors(pieces)
                for piece in pieces {
                    let changedPages = scan.take(piece, bounds, geometry, &owners)
                    if repairs { try await storage.writeFully(changedPages) }
                }
            }
        } catch {
            throw .storage(error)
        }
        if isSabotaged(.overlookCrossLinks) { scan.crossLinkedClusters = 0 }
        // What lies behind it is cut off.
        precondition(
            owners.end >= headerClusters && owners.end <= owners.clusterCount, "the end of what is in use, outside the file")
        scan.endOfReferenced = owners.end << geometry.clusterShift
        return scan
    }

    /// Gives what the entries of a piece name their owners, and puts 0 over entries that cannot be right.
    /// - Returns: the pages of it that have changed with that.
    private mutating func take(
        _ piece: TablePiece, _ bounds: TableEntryBounds, _ geometry: QEDGeometry, _ owners: inout ClusterOwnership
    ) -> [TablePiece] {
        let pageBytes = QEDGeometry.l2PageSizeBytes
        precondition(
            piece.byteCount % pageBytes == 0 && piece.fileOffset % UInt64(pageBytes) == 0,
            "a piece of a table, not in whole pages")
        let entries = piece.buffer.assumingMemoryBound(to: UInt64.self)
        var changed: [TablePiece] = []
        for index in 0..<(piece.byteCount / 8) where entries[index] != 0 {
            switch bounds.l2Entry(UInt64(littleEndian: entries[index])) {
            case .unallocated, .zero: continue
            case .allocated(let fileOffset):
                crossLinkedClusters += owners.claim(one: fileOffset >> geometry.clusterShift)
            case .invalid:
                invalidEntries += 1
                entries[index] = 0
                let offset = index / QEDGeometry.entriesPerL2Page * QEDGeometry.l2PageSizeBytes
                let fileOffset = piece.fileOffset + UInt64(offset)
                if changed.last?.fileOffset != fileOffset {
                    changed.append(
                        TablePiece(
                            buffer: piece.buffer + offset, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset))
                }
            }
        }
        precondition(changed.count <= piece.byteCount / pageBytes, "a page is written twice")
        return changed
    }
}
