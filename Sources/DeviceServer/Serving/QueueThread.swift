import BlockStorage
import CSupport
import Glibc
import IOURing
import Platform
import QEDChain
import QEDEngine
import SystemPackage
import Ublk

/// A hardware queue's thread: sets the queue up, serves until the device stops, and tells the main thread of both.
final class QueueThread: @unchecked Sendable {
    enum Phase: Equatable {
        case starting
        /// It has what it takes to serve, and waits for the image.
        case opened
        case serving
        case failed(reason: String)
        case ended(QueueEnd)
    }

    private struct Served {
        let image: Image
        let chain: [LayerFile]
    }

    // SAFETY: `phase` is locked; `thread` and `isTold` are the main thread's; the rest is set before the thread starts.
    let number: Int
    private let phaseLock = Lock(Phase.starting)
    /// Whether there comes an image to serve. It is the thread's alone then: files that a merge makes superfluous are closed.
    private let isServing = Answer<Bool>()
    private let toServe = Lock<Served?>(nil)
    private var isTold = false
    private let warningsLock = Lock<[String]>([])
    private let changed: Int32
    private var thread: DriverThread?

    var phase: Phase { phaseLock.withLock { $0 } }
    var hasEnded: Bool { if case .ended = phase { true } else { false } }
    /// What the queue lacks, though it serves.
    var warnings: [String] { warningsLock.withLock { $0 } }

    /// Starts the thread, which opens the queue and then waits for `serve`.
    /// - Parameters:
    ///   - processors: whose requests the queue gets; the thread is bound to all of them, as far as it may run there. To a
    ///     single one it is not: it would wait for whoever sends the requests, and be half as fast while others are idle.
    ///   - mailbox: what is asked of the queue comes from there.
    ///   - changed: an eventfd that is signalled whenever the phase changes, and when a sync of the image has failed.
    ///   - isPrivileged: the kernel reads the disk's partition table only where all queues are.
    ///   - isConfined: see `Confinement`.
    init(
        number: Int, processors: [Int], device: UblkCharacterDevice, info: UblkDeviceInfo,
        mailbox: QueueMailbox<EngineTarget<FileStorage>>, changed: Int32,
        isPrivileged: Bool, isConfined: Bool
    ) throws(Errno) {
        self.number = number
        self.changed = changed
        thread = try DriverThread(device: device, info: info, queue: number) { [self] open in
            // However the thread ends: who has asked it something is not left waiting.
            defer { mailbox.close() }
            bind(to: processors)
            if isConfined { Confinement.confineThread() }
            if !isPrivileged { cs_drop_system_administration() }
            do {
                let ring = try open()
                if let failure = ring.bufferLockFailure {
                    warn("the I/O buffers may be swapped out: \(failure); \(ReclaimSafety.lockRemedy)")
                }
                enter(.opened)
                guard isServing.wait(timeout: .seconds(1_000_000)) == true, let target = target(of: ring, info) else {
                    return ring.end()
                }
                let queue = QueueLoop(ring: ring, target: target, mailbox: mailbox)
                enter(.serving)
                enter(.ended(queue.run()))
            } catch {
                enter(.failed(reason: "\(error)"))
            }
        }
    }

    /// Has it fetch requests, and answer them with the image. Once.
    func serve(_ image: Image, _ chain: [LayerFile]) {
        isTold = true
        toServe.withLock { $0 = Served(image: image, chain: chain) }
        isServing.give(true)
    }

    /// On the thread, once.
    private func target(of ring: DriverQueue, _ info: UblkDeviceInfo) -> EngineTarget<FileStorage>? {
        let taken = toServe.withLock { served in
            defer { served = nil }
            return served
        }
        guard let taken else { return nil }
        let engine = EngineQueue(
            image: taken.image, storages: taken.chain.storages(on: ring.loop.ring), depth: info.queueDepth,
            largestRequestBytes: info.maxIOSizeBytes, executor: ring.loop.executor)
        return EngineTarget(
            engine: engine, of: taken.image, ring: ring.loop.ring, memory: ring.memory,
            whenFailed: { [changed] in cs_eventfd_signal(changed) })
    }

    /// Waits for the thread to end, which without an image it does now, and lets go of the queue. Once.
    func join() {
        if !isTold { isServing.give(false) }
        thread?.join()
    }

    /// Before the queue's memory is allocated, so that it is near.
    private func bind(to processors: [Int]) {
        guard processors.count > 1 else { return }
        let result = cs_bind_thread(processors.map { Int32(clamping: $0) }, UInt64(processors.count))
        // No such system call: a filter, as the unit's, says that of a right that was taken on purpose (docs/security.md).
        if result != 0 && result != -ENOSYS {
            warn("queue \(number) may not run where its requests come from: \(Errno(rawValue: -result)) (a cpuset, or taskset)")
        }
    }

    private func warn(_ sentence: String) { warningsLock.withLock { $0.append(sentence) } }

    private func enter(_ phase: Phase) {
        phaseLock.withLock { $0 = phase }
        cs_eventfd_signal(changed)
    }
}
