import BlockStorage
import IOURing

/// A request on its way through a queue. One per tag, made once, reused for ever.
struct RequestSlot {
    var request = BlockRequest(.flush)
    /// Storage operations of this request that have not completed.
    var outstanding: Int32 = 0
    /// The first operation that failed or fell short: a negative errno.
    var firstError: Int32 = 0
    /// The fill of which the request's data is a part: being written inline, or for the slot's task to perform.
    var fill: Fill?
    /// The request is in the hands of the slot's task.
    var isSlow = false

    /// The request's data is in the file; what is left to do is to commit it.
    var needsOnlyCommit = false

    /// The slot's task: made when the slot first needs one, parked between requests.
    var hasTask = false
    var parked: CompletionContinuation?
    /// A wake-up that came before the task had parked.
    var isWoken = false
    /// The slot's task, waiting for `outstanding` to become 0.
    var transferWaiter: CompletionContinuation?

    /// The pieces of a gathered write; the kernel may read them until the write completes.
    var vectors: (IOVector, IOVector, IOVector) = (
        IOVector(base: nil, byteCount: 0), IOVector(base: nil, byteCount: 0), IOVector(base: nil, byteCount: 0)
    )
}

/// A piece of a request: where it lies in which file of the chain.
struct Extent {
    /// Position in the chain, or `Extent.zeros`.
    var layer: Int32
    var byteCount: UInt32
    var fileOffset: UInt64
    var deviceOffset: UInt64

    static let zeros: Int32 = -1
}

/// A growing list of extents in memory that is reused; neighbours that continue each other are merged.
struct ExtentList: @unchecked Sendable {
    // SAFETY: owned by the queue (inline path) or by one slow request; never shared between threads.
    private let storage: UnsafeMutablePointer<Extent>
    private let capacity: Int
    private(set) var count = 0

    init(capacity: Int) {
        self.capacity = capacity
        storage = .allocate(capacity: capacity)
    }

    func deallocate() { storage.deallocate() }

    subscript(index: Int) -> Extent { storage[index] }

    mutating func removeAll() { count = 0 }

    /// Whether any of it lies in no file.
    var hasZeros: Bool {
        for index in 0..<count where storage[index].layer == Extent.zeros { return true }
        return false
    }

    /// - Returns: false when the list is full.
    @inline(__always)
    mutating func append(layer: Int32, fileOffset: UInt64, deviceOffset: UInt64, byteCount: UInt64) -> Bool {
        if count > 0 {
            let last = storage + (count - 1)
            if last.pointee.layer == layer,
                last.pointee.deviceOffset &+ UInt64(last.pointee.byteCount) == deviceOffset,
                layer == Extent.zeros || last.pointee.fileOffset &+ UInt64(last.pointee.byteCount) == fileOffset,
                UInt64(last.pointee.byteCount) &+ byteCount <= ExtentList.largestExtentBytes
            {
                last.pointee.byteCount &+= UInt32(truncatingIfNeeded: byteCount)
                return true
            }
        }
        guard count < capacity, byteCount <= ExtentList.largestExtentBytes else { return false }
        storage[count] = Extent(
            layer: layer, byteCount: UInt32(truncatingIfNeeded: byteCount), fileOffset: fileOffset,
            deviceOffset: deviceOffset)
        count += 1
        return true
    }

    /// How far the list has been filled.
    struct Mark {
        fileprivate var count: Int
        fileprivate var lastByteCount: UInt32
    }

    var mark: Mark { Mark(count: count, lastByteCount: count > 0 ? storage[count - 1].byteCount : 0) }

    /// Takes away what was appended since `mark` was taken.
    mutating func rewind(to mark: Mark) {
        precondition(mark.count <= count, "the list was emptied since")
        count = mark.count
        if count > 0 { storage[count - 1].byteCount = mark.lastByteCount }
    }

    static let largestExtentBytes: UInt64 = 1 << 30
}
