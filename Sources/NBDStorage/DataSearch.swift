/// The search for the next data of an export, question by question. A value: what a server answers may be anything.
struct DataSearch {
    private let sizeBytes: UInt64
    private let start: UInt64
    /// Up to here nothing but zeros.
    private var position: UInt64
    private(set) var found: Range<UInt64>?

    /// So much is asked for at once. The protocol counts in 32 bits.
    static let largestQuestionBytes: UInt64 = 1 << 30

    init(from fileOffset: UInt64, sizeBytes: UInt64) {
        self.sizeBytes = sizeBytes
        start = fileOffset
        position = fileOffset
        if fileOffset >= sizeBytes { found = max(fileOffset, sizeBytes)..<max(fileOffset, sizeBytes) }
    }

    /// What is to be asked next; nil when the search has ended.
    var next: ExportRequest.Work? {
        guard found == nil else { return nil }
        return .extents(offset: position, byteCount: min(sizeBytes - position, DataSearch.largestQuestionBytes))
    }

    /// - Parameter extents: from where the question began, or up to a block before it.
    /// - Returns: false where the answer says nothing.
    mutating func learn(_ extents: [ExportExtent]) -> Bool {
        precondition(found == nil, "nothing was asked")
        let before = position
        var end = position
        var dataStart: UInt64?
        for extent in extents {
            // What it would be past the end of the export says nothing.
            let next = end + min(extent.byteCount, sizeBytes - end)
            guard next > end else { break }
            if extent.readsAsZeros {
                if dataStart != nil { break }
                position = next
            } else if dataStart == nil {
                dataStart = end
            }
            end = next
        }
        if let dataStart {
            found = dataStart..<end
        } else if position >= sizeBytes {
            found = sizeBytes..<sizeBytes
        }
        precondition(found.map { start <= $0.lowerBound } ?? (start <= position), "data before the question")
        return found != nil || position > before
    }
}
