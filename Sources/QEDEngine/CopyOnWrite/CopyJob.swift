/// One of a queue's copy jobs.
struct JobID: Equatable {
    let index: Int
}

/// A copy that waits for a job, or is in one: the request's data, and where the old content of its clusters lies.
struct PlannedCopy {
    var id: RequestID
    var plan: CopyPlan
    /// The request's data, from `plan.start` on.
    var data: UnsafeMutableRawPointer
    /// How many of the jobs' `beneath`, which are in the order of the copies, tell what lies beneath the plan's clusters.
    var beneathCount: Int
}

/// Copies that are performed together: what lies beneath is read into one buffer, the requests' data is laid over it, and
/// what follows each other in the file goes there with one write. That is all of it where one queue has copied: the new
/// clusters of several are reserved in turn, and a job of neighbours alone would have a single member then.
struct CopyJob {
    enum State {
        case free
        /// What lies beneath is on its way into the buffer.
        case reading
        /// All is in the buffer, and on its way to the file.
        case writing
    }

    var state = State.free
    /// In the order of their clusters in the file, and in the buffer one after the other.
    var members: [PlannedCopy] = []
    var byteCount = 0
    /// Made when the job is first used.
    var buffer: UnsafeMutableRawPointer?

    /// Jobs of a queue, and what each can hold: with 64 KiB clusters 16 of them, so that at depth 32 one half is read while
    /// the other is written.
    static let limit = 4
    static let bufferBytes = 1 << 20
    static let bufferAlignmentBytes = 4096

    /// Whether there is room for the clusters of `plan`.
    func takes(_ plan: CopyPlan) -> Bool { byteCount + Int(plan.sizeBytes) <= CopyJob.bufferBytes }

    mutating func append(_ copy: PlannedCopy) {
        precondition(takes(copy.plan), "a copy for which a job has no room")
        precondition(state == .free, "a copy for a job that has begun")
        members.append(copy)
        byteCount += Int(copy.plan.sizeBytes)
        precondition(byteCount <= CopyJob.bufferBytes, "a job larger than its buffer")
    }

    /// Empties the job for its next use; the buffer stays.
    mutating func reset() {
        members.removeAll(keepingCapacity: true)
        byteCount = 0
        state = .free
    }
}
