import CSupport
import Glibc
import SystemPackage

/// The data buffers of a queue whose data the driver copies: one per tag, page-aligned, mapped once, in memory from the beginning
/// and not to be swapped out. The driver copies a write's data into them while memory may be short, perhaps because of this
/// very write.
struct QueueBuffers: ~Copyable {
    // SAFETY: mapped here, unmapped in deinit, when the driver and the target have let go of every tag. A tag's buffer
    // belongs to the driver from its fetch or commit to the next request, and to the target from there to its result.
    private let start: UnsafeMutableRawPointer?
    private let sizePerTagBytes: Int
    private let depth: Int
    /// Why they may be swapped out.
    let lockFailure: Errno?

    /// Those of the memory node of the thread that makes them.
    /// - Throws: the errno of `mmap`.
    init(depth: Int, maxIOSizeBytes: Int) throws(Errno) {
        let page = systemPageSizeBytes
        sizePerTagBytes = (maxIOSizeBytes + page - 1) / page * page
        self.depth = depth
        let mapped = mmap(
            nil, sizePerTagBytes * depth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(rawValue: errno) }
        start = mapped
        let locked = cs_lock_range(mapped, UInt64(sizePerTagBytes * depth))
        lockFailure = locked == 0 ? nil : Errno(rawValue: -locked)
        if locked != 0 { cs_populate_range(mapped, UInt64(sizePerTagBytes * depth)) }
    }

    /// None: the queue's requests borrow memory (`RequestMemory`).
    init() {
        start = nil
        sizePerTagBytes = 0
        depth = 0
        lockFailure = nil
    }

    deinit { if let start { munmap(start, sizePerTagBytes * depth) } }

    @inline(__always)
    func buffer(_ tag: Int) -> UnsafeMutableRawPointer {
        guard let start else { preconditionFailure("the tags of this queue have no memory of their own") }
        return start + tag * sizePerTagBytes
    }
}
