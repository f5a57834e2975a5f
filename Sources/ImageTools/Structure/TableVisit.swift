import BlockStorage
import QEDEngine
import QEDFormat

extension ImageStructure {
    /// Reads an L2 table piece by piece; what `holes` does not ask for is left out, as having no entries.
    /// - Parameters:
    ///   - holes: one for all tables of a pass.
    ///   - body: gets the entries of a piece (little-endian, to be changed in place by whoever writes them
    ///     back), their file offset and the device offset of the first.
    func visitTable(
        _ l1Index: Int, at tableFileOffset: UInt64, through buffer: UnsafeMutableRawPointer, pieceBytes: Int,
        holes: inout TableHoles,
        _ body: (UnsafeMutableBufferPointer<UInt64>, UInt64, UInt64) async throws(StorageError) -> Void
    ) async throws(StorageError) {
        var done: UInt64 = 0
        while let place = holes.nextPiece(
            storage, ofTableAt: tableFileOffset, geometry, from: done, pieceBytes: UInt64(pieceBytes))
        {
            done = place
            let piece = Int(min(UInt64(pieceBytes), geometry.tableSizeBytes - done))
            try await storage.readSectors(into: buffer, byteCount: piece, fileOffset: tableFileOffset + done)
            let entries = UnsafeMutableBufferPointer(
                start: buffer.assumingMemoryBound(to: UInt64.self), count: piece / 8)
            try await body(
                entries, tableFileOffset + done,
                (UInt64(l1Index) << geometry.l1Shift) + (done / 8) << geometry.clusterShift)
            done += UInt64(piece)
        }
    }

    /// The size of the pieces that tables are read in.
    var tablePieceBytes: Int { Int(min(geometry.tableSizeBytes, 1 << 20)) }
}

/// Memory for I/O, aligned to pages; freed with the last reference.
final class PageBuffer: @unchecked Sendable {
    // SAFETY: freed in deinit; whoever holds the reference is the only user.
    let address: UnsafeMutableRawPointer
    let byteCount: Int

    init(byteCount: Int) {
        self.byteCount = byteCount
        address = .allocate(byteCount: byteCount, alignment: 4096)
    }

    deinit { address.deallocate() }

    func zero() { address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount) }
}
