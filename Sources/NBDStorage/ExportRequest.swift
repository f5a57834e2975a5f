import IOURing

/// What is asked of an export, and who is to be told.
struct ExportRequest: @unchecked Sendable {
    // SAFETY: the buffer is left alone by whoever asks until the answer.
    enum Work {
        case read(into: UnsafeMutableRawPointer, byteCount: Int, offset: UInt64)
        case extents(offset: UInt64, byteCount: UInt64)
    }

    enum Answer {
        /// A completion on another thread's ring.
        case completion(CompletionToken, ring: RingAddress)
        /// Called on the export's thread: with 0 or a negative errno, and with the extents that were asked for.
        case call(@Sendable (Int32, [ExportExtent]) -> Void)
    }

    var work: Work
    var answer: Answer
}

/// A piece of an export.
struct ExportExtent: Equatable, Sendable {
    var byteCount: UInt64
    var readsAsZeros: Bool
}
