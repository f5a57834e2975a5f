import Glibc
import SystemPackage

/// The data buffers of one queue: one per tag, page-aligned, mapped once.
struct QueueBuffers: ~Copyable {
    // SAFETY: mapped here, unmapped in deinit, when the driver and the target have let go of every tag. A tag's buffer
    // belongs to the driver from its fetch or commit to the next request, and to the target from there to its result.
    private let start: UnsafeMutableRawPointer
    private let sizePerTagBytes: Int
    private let depth: Int

    /// - Throws: the errno of `mmap`.
    init(depth: Int, maxIOSizeBytes: Int) throws(Errno) {
        let page = systemPageSizeBytes
        sizePerTagBytes = (maxIOSizeBytes + page - 1) / page * page
        self.depth = depth
        let mapped = mmap(
            nil, sizePerTagBytes * depth, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(rawValue: errno) }
        start = mapped
    }

    deinit { munmap(start, sizePerTagBytes * depth) }

    /// `buffer`, for those who outlive neither the buffers nor their use.
    var bufferOfTag: (Int) -> UnsafeMutableRawPointer {
        { [start, sizePerTagBytes] tag in start + tag * sizePerTagBytes }
    }

    func buffer(_ tag: Int) -> UnsafeMutableRawPointer { start + tag * sizePerTagBytes }
}
