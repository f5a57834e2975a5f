/// What is known of a raw file's holes, piece by piece: a hole and the data behind it, learned together. The file is not changed
/// while it is open, so what was true once stays true.
struct KnownData {
    private struct Piece {
        /// A hole up to `dataStart`, data from there up to `end`.
        var start: UInt64
        var dataStart: UInt64
        var end: UInt64
    }

    /// In the order of the file, and apart from each other.
    private var pieces: [Piece] = []
    /// The file cannot tell; it is not asked again.
    private var isUnknowable = false

    /// So much is remembered; then everything is forgotten, and learned again as it is needed.
    static let pieceLimit = 4096

    /// Whether it is known what lies at `fileOffset`, or cannot be.
    func knows(_ fileOffset: UInt64) -> Bool { isUnknowable || piece(at: fileOffset) != nil }

    /// - Parameters:
    ///   - data: the next data from `fileOffset` on; nil when the file cannot tell.
    ///   - fileOffset: where nothing is known.
    mutating func learn(_ data: Range<UInt64>?, from fileOffset: UInt64, fileSizeBytes: UInt64) {
        // No more data, and an end before the end that was there: the file was cut, and what is gone is not a hole.
        guard let data, data.lowerBound >= fileOffset, !data.isEmpty || data.lowerBound >= fileSizeBytes else {
            isUnknowable = true
            pieces = []
            return
        }
        // Two requests that came upon the same hole have both asked.
        guard !knows(fileOffset) else { return }
        if pieces.count >= KnownData.pieceLimit { pieces.removeAll(keepingCapacity: true) }
        // Behind the last data there is nothing more to ask.
        let learned =
            data.isEmpty
            ? Piece(start: fileOffset, dataStart: max(data.lowerBound, fileSizeBytes), end: max(data.lowerBound, fileSizeBytes))
            : Piece(start: fileOffset, dataStart: data.lowerBound, end: data.upperBound)
        let index = firstIndex(behind: fileOffset)
        // What was known of the same data from a later place on.
        var end = index
        while end < pieces.count, pieces[end].start < learned.end { end += 1 }
        precondition(
            learned.start <= learned.dataStart && learned.dataStart <= learned.end && learned.start < learned.end,
            "a hole that ends before it begins")
        pieces.replaceSubrange(index..<end, with: CollectionOfOne(learned))
        precondition(knows(fileOffset), "what was learned is forgotten")
    }

    /// Where the hole ends in which `fileOffset` lies; nil when it is not known to lie in one.
    @inline(__always)
    func endOfHole(at fileOffset: UInt64) -> UInt64? {
        guard !pieces.isEmpty, let piece = piece(at: fileOffset), fileOffset < piece.dataStart else { return nil }
        return piece.dataStart
    }

    /// What was learned for `fileOffset`, which is known, as the file would tell it; nil: it cannot tell.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        precondition(knows(fileOffset), "nobody has asked")
        return piece(at: fileOffset).map { max($0.dataStart, fileOffset)..<$0.end }
    }

    private func piece(at fileOffset: UInt64) -> Piece? {
        let index = firstIndex(behind: fileOffset)
        guard index > 0, fileOffset < pieces[index - 1].end else { return nil }
        return pieces[index - 1]
    }

    /// The first piece that starts behind `fileOffset`.
    private func firstIndex(behind fileOffset: UInt64) -> Int {
        var low = 0
        var high = pieces.count
        while low < high {
            let middle = (low + high) / 2
            if pieces[middle].start <= fileOffset { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
