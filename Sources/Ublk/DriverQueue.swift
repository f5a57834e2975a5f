import CSupport
import Glibc
import IOURing
import SystemPackage

/// One queue of a device as the driver has it: a ring with the character device, the queue's descriptors, and the memory of
/// its tags.
///
/// Made on the queue's thread, which goes on to run the loop: the driver takes a queue's commands from the thread that
/// fetched (6.12), and the ring belongs to the thread that made it.
public final class DriverQueue: QueueRing {
    public let depth: Int
    public let memory: RequestMemory?
    /// For the target's own I/O and tasks.
    public let loop: RingLoop
    private let queue: UInt16
    /// The queue's.
    private let thread = pthread_self()
    private let descriptors: DescriptorTable
    private let buffers: QueueBuffers
    private let device = DeviceFile.registered(index: 0)
    private let tickInterval = RingInterval(nanoseconds: 1_000_000_000)

    /// - Parameter info: the device as it was negotiated.
    /// - Throws: the errno of what could not be had: a ring, memory, the mapping of the descriptors.
    init(device: UblkCharacterDevice, info: UblkDeviceInfo, queue: Int) throws(Errno) {
        self.queue = UInt16(queue)
        depth = info.queueDepth
        // The commands of all tags, and beside them a few operations of the target for each.
        let entries = UInt32(max(depth * 2, 64))
        loop = try RingLoop(entries: entries, completionEntries: entries * 4)
        do {
            try loop.ring.registerFiles([device.descriptor])
            if info.isZeroCopy {
                try loop.ring.registerEmptyBuffers(count: depth)
                let slots = try SlotMemory(
                    depth: depth, largestBytes: info.maxIOSizeBytes, wake: { [executor = loop.executor] in executor.wake() })
                buffers = QueueBuffers()
                memory = RequestMemory(device: device.descriptor, queue: queue, depth: depth, slots: slots)
                bufferLockFailure = slots.lockFailure
            } else {
                buffers = try QueueBuffers(depth: depth, maxIOSizeBytes: info.maxIOSizeBytes)
                memory = nil
                bufferLockFailure = buffers.lockFailure
            }
            descriptors = try DescriptorTable.map(device, queue: queue, depth: depth)
        } catch {
            loop.close()
            throw error
        }
    }

    /// Why the I/O buffers may be swapped out; nil where they may not.
    public let bufferLockFailure: Errno?

    public var waker: @Sendable () -> Void { { [executor = loop.executor] in executor.wake() } }

    @inline(__always)
    public func request(_ tag: Int) -> RequestDescriptor { descriptors[tag] }

    @inline(__always)
    public func buffer(_ tag: Int) -> UnsafeMutableRawPointer { buffers.buffer(tag) }

    public func fetch(_ tag: Int, token: CompletionToken) {
        QueueCommands.fetch(
            on: loop.ring, device: device, queue: queue, tag: UInt16(tag), data: data(tag), token: token)
    }

    @inline(__always)
    public func commitAndFetch(_ tag: Int, result: Int32, token: CompletionToken) {
        QueueCommands.commitAndFetch(
            on: loop.ring, device: device, queue: queue, tag: UInt16(tag), result: result, data: data(tag), token: token)
    }

    @inline(__always)
    private func data(_ tag: Int) -> TagData {
        memory != nil ? .registered(index: UInt16(tag)) : .copied(buffers.buffer(tag))
    }

    public func awaitTick(token: CompletionToken) { loop.ring.submit(tickInterval, token: token) }

    @inline(__always)
    public func submit() { loop.ring.submit() }

    @inline(__always)
    public func submitEarly() { loop.submitEarly() }

    @inline(__always)
    public func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void) { loop.turn(waits: waits, inline: inline) }

    @inline(__always)
    public func runReady() { loop.executor.runReady() }

    public func end() {
        descriptors.unmap()
        loop.end()
    }

    /// Lets go of the ring, and so of the tags that the driver has. After `end`, when the queue's thread has ended too. The
    /// character device itself is not closed.
    ///
    /// Linux 6.12 completes the commands of a ring that is closed (`ublk_cancel_cmd`), and meanwhile, on the thread that fetched
    /// them, those for which it has a request (`__ublk_rq_task_work`): some twice, which corrupts the kernel's memory. For a
    /// thread that has ended it completes none.
    func close() {
        precondition(pthread_self() != thread, "a queue's ring is closed by its own thread, which has not ended")
        loop.ring.close()
    }
}
