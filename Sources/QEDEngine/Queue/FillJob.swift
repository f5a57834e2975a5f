/// A planned fill with the request whose data goes into it.
struct PlannedFill {
    var slot: Int
    var fill: Fill
}

/// Fills whose new clusters follow each other in the file, performed together: what lies beneath is read into one buffer,
/// the requests' data is laid over it, and one write takes all of it to the file.
struct FillJob {
    /// In the order of their clusters in the file.
    var members: [PlannedFill] = []
    var fileOffset: UInt64 = 0
    var byteCount = 0
    /// What lies beneath is in the buffer, and the write is under way.
    var isWriting = false
    /// Made when the job is first used.
    var buffer: UnsafeMutableRawPointer?

    /// Jobs of a queue, and what each can hold: with 64 KiB clusters 16 of them, so that at depth 32 one half is read while
    /// the other is written.
    static let limit = 4
    static let bufferBytes = 1 << 20
    static let bufferAlignmentBytes = 4096

    /// Whether `fill` continues the job in the file and finds room.
    func takes(_ fill: Fill, clusterShift: UInt64) -> Bool {
        members.isEmpty
            || fill.fileOffset == fileOffset + UInt64(byteCount)
                && byteCount + Int(fill.count << clusterShift) <= FillJob.bufferBytes
    }

    mutating func append(_ planned: PlannedFill, clusterShift: UInt64) {
        if members.isEmpty { fileOffset = planned.fill.fileOffset }
        members.append(planned)
        byteCount += Int(planned.fill.count << clusterShift)
    }

    /// Empties the job for its next use; the buffer stays.
    mutating func reset() {
        members.removeAll(keepingCapacity: true)
        byteCount = 0
        isWriting = false
    }
}
