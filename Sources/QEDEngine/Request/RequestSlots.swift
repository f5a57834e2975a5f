import BlockStorage
import IOURing

/// A request under way, by its place in the queue: the driver's tag.
struct RequestID: Equatable {
    let tag: Int
    /// Its storage operations.
    var transfers: TransferGroup { TransferGroup(number: tag) }
}

/// The requests of a queue: one slot for each tag, made once, reused for ever.
struct RequestSlots: @unchecked Sendable {
    // SAFETY: memory of one queue, touched by its thread alone; the queue frees it when no request is under way.

    /// Where a request is on its way.
    ///
    ///     idle ─▶ transferring ─────────────────────▶ idle     inline
    ///       │          ├──▶ slow, after an error
    ///       │          └──▶ committing, FUA ────────▶ idle
    ///       ├──▶ covering ──(the same)                         whole new clusters over old data
    ///       ├──▶ planned ───(the same)                         parts of new clusters over old data
    ///       └──▶ slow ──────────────────────────────▶ idle     everything that has to wait
    enum State: UInt8 {
        /// There is no request.
        case idle
        /// Its data moves; the last completion ends it.
        case transferring
        /// The same, and its clusters, which hide what lies beneath, are published then (`copy`).
        case covering
        /// A copy job has it, or will: what lies beneath its clusters is copied around its data.
        case planned
        /// In the hands of its task.
        case slow
        /// Its data is in the file; its task has only to make it durable.
        case committing

        /// Whether the inline path has it, which can hand it to its task.
        var isInline: Bool { self == .transferring || self == .covering || self == .planned }
    }

    struct Slot {
        var state = State.idle
        /// Its task has had to wait for a page of a table. Set and taken away by tasks alone.
        var hasMissed = false
        var request = BlockRequest(.flush)
        /// Of a request that is `covering`, or whose task has a copy to perform that the inline path has planned.
        var copy: CopyPlan?
        var task = ParkedTask.none
        /// The pieces of a gathered write; the kernel may read them until the write completes.
        var vectors: (IOVector, IOVector, IOVector) = (
            IOVector(base: nil, byteCount: 0), IOVector(base: nil, byteCount: 0), IOVector(base: nil, byteCount: 0)
        )
    }

    let depth: Int
    private let slots: UnsafeMutablePointer<Slot>

    init(depth: Int) {
        precondition(depth > 0, "a queue without slots")
        self.depth = depth
        slots = .allocate(capacity: depth)
        slots.initialize(repeating: Slot(), count: depth)
    }

    func deallocate() {
        slots.deinitialize(count: depth)
        slots.deallocate()
    }

    subscript(id: RequestID) -> Slot {
        @inline(__always) unsafeAddress { UnsafePointer(slots + id.tag) }
        @inline(__always) nonmutating unsafeMutableAddress { slots + id.tag }
    }

    /// A request's task has to wait for a page. Each read and write is counted once, however many it waits for.
    func noteMiss(_ group: TransferGroup, in counters: UnsafeMutablePointer<EngineStatistics>) {
        let id = RequestID(tag: group.number)
        precondition(slots[id.tag].state == .slow, "a request that its task does not have waits for a page")
        guard !slots[id.tag].hasMissed else { return }
        slots[id.tag].hasMissed = true
        switch slots[id.tag].request.operation {
        case .read, .write: counters.pointee.pageMisses &+= 1
        case .flush, .discard, .writeZeroes: break
        }
    }

    /// Where a request's vectors lie.
    ///
    /// SAFETY: the slot's memory does not move; a tuple of three equal structs is laid out as an array of them.
    func vectors(of id: RequestID) -> UnsafeRawPointer {
        UnsafeRawPointer(slots + id.tag).advanced(by: MemoryLayout<Slot>.offset(of: \.vectors) ?? 0)
    }
}

/// Results that nobody has taken yet, in the order in which they came: never more than there are requests.
struct FinishedRequests: @unchecked Sendable {
    // SAFETY: memory of one queue, touched by its thread alone.
    private let entries: UnsafeMutablePointer<(tag: Int32, result: Int32)>
    /// The length is a power of two, more than the depth.
    private let mask: Int
    private var head = 0
    private var tail = 0

    init(depth: Int) {
        mask = 1 << (Int.bitWidth - depth.leadingZeroBitCount) - 1
        entries = .allocate(capacity: mask + 1)
    }

    func deallocate() { entries.deallocate() }

    var isEmpty: Bool { head == tail }

    @inline(__always)
    mutating func append(_ id: RequestID, _ result: Int32) {
        entries[tail] = (Int32(truncatingIfNeeded: id.tag), result)
        tail = (tail &+ 1) & mask
    }

    @inline(__always)
    mutating func popFirst() -> (tag: Int, result: Int32)? {
        guard head != tail else { return nil }
        let entry = entries[head]
        head = (head &+ 1) & mask
        return (Int(entry.tag), entry.result)
    }
}
