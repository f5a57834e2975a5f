import IOURing
import QEDFormat

/// The buffers through which backing data is copied, and the zeros that partial clusters are cleared with.
///
/// Bounded: when all are in use a copy waits its turn. Belongs to one queue.
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
    private static let largestBufferBytes = 256 << 10
    private static let budgetBytes = 8 << 20

    init(clusterSizeBytes: UInt64) {
        bufferBytes = Int(min(2 * clusterSizeBytes, UInt64(StagingPool.largestBufferBytes)))
        limit = StagingPool.budgetBytes / bufferBytes
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
