import BlockStorage
import QEDFormat

/// A piece of a table and the memory that it is read into, or written from.
struct TablePiece: @unchecked Sendable {
    // SAFETY: `buffer` belongs to whoever has the pieces transferred, until that has returned.
    var buffer: UnsafeMutableRawPointer
    var byteCount: Int
    var fileOffset: UInt64

    /// So many are transferred at once: what keeps a disk busy.
    static let limit = 32
    /// The most that one of them has: whole tables of the usual geometry.
    static let largestBytes = 256 << 10
}

/// Tables in pieces, up to `TablePiece.limit` of them on their way at once.
extension Storage {
    /// Reads pieces of tables, which are whole sectors.
    /// - Throws: of several errors the first piece's. Nothing is on its way any more then.
    func readSectors(_ pieces: [TablePiece]) async throws(StorageError) {
        try await atOnce(pieces) { piece async throws(StorageError) in
            try await self.readSectors(into: piece.buffer, byteCount: piece.byteCount, fileOffset: piece.fileOffset)
        }
    }

    /// Writes pieces of tables. When it throws each may have been written or not.
    /// - Throws: as `readSectors`.
    func writeFully(_ pieces: [TablePiece]) async throws(StorageError) {
        try await atOnce(pieces) { piece async throws(StorageError) in
            try await self.writeFully(from: piece.buffer, byteCount: piece.byteCount, fileOffset: piece.fileOffset)
        }
    }

    /// The tasks of the pieces run where the caller's does: they inherit its executor.
    private func atOnce(
        _ pieces: [TablePiece], _ transfer: @escaping @Sendable (TablePiece) async throws(StorageError) -> Void
    ) async throws(StorageError) {
        precondition(
            pieces.allSatisfy { $0.byteCount > 0 && $0.byteCount <= TablePiece.largestBytes },
            "a piece of nothing, or too large a one")
        if pieces.count <= 1 {
            if let piece = pieces.first { try await transfer(piece) }
            return
        }
        let failure = await withTaskGroup(of: (Int, StorageError)?.self) { group in
            var first: (Int, StorageError)?
            for (number, piece) in pieces.enumerated() {
                if number >= TablePiece.limit {
                    let ended = await group.next()
                    // Those that come later are not begun, those before are awaited.
                    if case let failure?? = ended { first = failure }
                    if first != nil { break }
                }
                group.addTask {
                    do throws(StorageError) {
                        try await transfer(piece)
                        return nil
                    } catch {
                        return (number, error)
                    }
                }
            }
            for await case let failure? in group where failure.0 < first?.0 ?? .max { first = failure }
            return first?.1
        }
        if let failure { throw failure }
    }
}
