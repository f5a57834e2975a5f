import BlockStorage
import QEDFormat

/// The holes that a file system reports in tables: read like everything else as far as that can be asked for, and taken for
/// the zeros that they should be only beyond that.
///
/// File systems have reported holes where data was (OpenZFS for years, and not only that one). A table entry that nobody
/// sees is a cluster that nobody owns, and what nobody owns is cut off, or used again. So whoever gives clusters up asks
/// `inferredBytes` first: nothing may follow from what was not read. Not all can be read, because a sparse file can name more
/// tables than anybody could read. A value for each pass over the tables.
package struct TableHoles {
    /// So much of reported holes is read in a pass, which takes a moment: a thousand tables of the usual geometry without an
    /// entry. A sound image has next to none, because a piece with an entry in it is no hole.
    package static let readLimitBytes: UInt64 = 256 << 20

    private var leftToRead = TableHoles.readLimitBytes
    /// Bytes of tables that were not read, because the file system said that they are holes.
    package private(set) var inferredBytes: UInt64 = 0

    package init() {}

    /// Finds the next piece of a table that has to be read.
    /// - Parameter done: where to look from, in the table, in whole pieces.
    /// - Returns: its place in the table; nil when there is none.
    package mutating func nextPiece<S: Storage>(
        _ storage: S, ofTableAt tableFileOffset: UInt64, _ geometry: QEDGeometry, from done: UInt64, pieceBytes: UInt64
    ) -> UInt64? {
        guard done < geometry.tableSizeBytes else { return nil }
        precondition(pieceBytes > 0 && done % pieceBytes == 0, "the place is not that of a piece")
        let start = tableFileOffset + done
        // A file that cannot tell is read.
        guard let data = storage.nextData(from: start) else { return done }
        let next = data.isEmpty ? geometry.tableSizeBytes : done + (data.lowerBound - start) / pieceBytes * pieceBytes
        let end = min(next, geometry.tableSizeBytes)
        if end > done && leftToRead >= pieceBytes && !isSabotaged(.believeHoles) {
            leftToRead -= pieceBytes
            return done
        }
        if !isSabotaged(.believeHoles) { inferredBytes += end - done }
        return end < geometry.tableSizeBytes ? end : nil
    }
}
