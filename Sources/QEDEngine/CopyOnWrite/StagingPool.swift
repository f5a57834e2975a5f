import IOURing
import QEDFormat

/// Buffers of one size: those through which backing data is copied, with the zeros that partial clusters are cleared with; and
/// those that tables are read into when a page of the chain is made.
///
/// Bounded: when all are in use one waits its turn. Belongs to one queue.
final class StagingPool: @unchecked Sendable {
    // SAFETY: touched by the queue's thread alone; buffers are freed when the queue is.
    let bufferBytes: Int
    private let limit: Int
    private var free: [UnsafeMutableRawPointer] = []
    private var allocated: [UnsafeMutableRawPointer] = []
    private var waiters: [CompletionContinuation] = []
    private var zeroBuffer: UnsafeMutableRawPointer?

    private static let alignmentBytes = 4096
    /// A fill of up to this many bytes around the request's own is one read and one write.
    static let largestBufferBytes = 256 << 10
    private static let budgetBytes = 8 << 20

    /// For copies.
    convenience init(clusterSizeBytes: UInt64) {
        let bufferBytes = Int(min(2 * clusterSizeBytes, UInt64(StagingPool.largestBufferBytes)))
        self.init(bufferBytes: bufferBytes, limit: StagingPool.budgetBytes / bufferBytes)
    }

    init(bufferBytes: Int, limit: Int) {
        precondition(bufferBytes > 0 && limit > 0, "buffers for nothing, or none")
        self.bufferBytes = bufferBytes
        self.limit = limit
        free.reserveCapacity(limit)
        allocated.reserveCapacity(limit)
    }

    deinit {
        for buffer in allocated { buffer.deallocate() }
        zeroBuffer?.deallocate()
    }

    /// A buffer of `bufferBytes`, page-aligned; waits until one is free.
    func take() async -> UnsafeMutableRawPointer {
        while true {
            precondition(free.count <= allocated.count && allocated.count <= limit, "more buffers than there can be")
            if let buffer = free.popLast() { return buffer }
            if allocated.count < limit {
                let buffer = UnsafeMutableRawPointer.allocate(
                    byteCount: bufferBytes, alignment: StagingPool.alignmentBytes)
                allocated.append(buffer)
                return buffer
            }
            _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
                waiters.append(continuation)
            }
        }
    }

    func giveBack(_ buffer: UnsafeMutableRawPointer) {
        precondition(free.count < allocated.count, "more buffers are given back than were taken")
        free.append(buffer)
        if !waiters.isEmpty { waiters.removeFirst().resume(returning: 0) }
    }

    /// `bufferBytes` zeros, only to be read.
    var zeros: UnsafeMutableRawPointer {
        if let zeroBuffer { return zeroBuffer }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: bufferBytes, alignment: StagingPool.alignmentBytes)
        buffer.initializeMemory(as: UInt8.self, repeating: 0, count: bufferBytes)
        zeroBuffer = buffer
        return buffer
    }
}
