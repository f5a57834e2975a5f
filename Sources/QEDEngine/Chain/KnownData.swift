/// What is known of a raw file's holes: one hole and the data behind it, learned together. The file is not changed while it is
/// open, so what was true once stays true.
struct KnownData {
    private var holeStart: UInt64 = 0
    private var dataStart: UInt64 = 0
    private var dataEnd: UInt64 = 0
    /// The file cannot tell; it is not asked again.
    private var isUnknowable = false

    /// Whether it is known what lies at `fileOffset`, or cannot be.
    func knows(_ fileOffset: UInt64) -> Bool { isUnknowable || fileOffset >= holeStart && fileOffset < dataEnd }

    /// - Parameter data: the next data from `fileOffset` on; nil when the file cannot tell.
    mutating func learn(_ data: Range<UInt64>?, from fileOffset: UInt64, fileSizeBytes: UInt64) {
        // No more data, and an end before the end that was there: the file was cut, and what is gone is not a hole.
        guard let data, data.lowerBound >= fileOffset, !data.isEmpty || data.lowerBound >= fileSizeBytes else {
            isUnknowable = true
            return
        }
        holeStart = fileOffset
        dataStart = data.lowerBound
        // Behind the last data there is nothing more to ask.
        dataEnd = data.isEmpty ? fileSizeBytes : data.upperBound
        if data.isEmpty { dataStart = max(dataStart, fileSizeBytes) }
    }

    /// Where the hole ends in which `fileOffset` lies; nil when it is not known to lie in one.
    @inline(__always)
    func endOfHole(at fileOffset: UInt64) -> UInt64? {
        fileOffset >= holeStart && fileOffset < dataStart ? dataStart : nil
    }
}
