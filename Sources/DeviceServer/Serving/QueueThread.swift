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
        case serving
        case failed(reason: String)
        case ended(QueueEnd)
    }

    // SAFETY: `phase` is locked; the rest is set before the thread starts, and `thread` is the main thread's.
    let number: Int
    private let phaseLock = Lock(Phase.starting)
    private let warningsLock = Lock<[String]>([])
    private let changed: Int32
    private var thread: DriverThread?

    var phase: Phase { phaseLock.withLock { $0 } }
    /// What the queue lacks, though it serves.
    var warnings: [String] { warningsLock.withLock { $0 } }

    /// Starts the thread.
    /// - Parameters:
    ///   - processors: whose requests the queue gets; the thread is bound to all of them, as far as it may run there. To a
    ///     single one it is not: it would wait for whoever sends the requests, and be half as fast while others are idle.
    ///   - mailbox: what is asked of the queue comes from there.
    ///   - changed: an eventfd that is signalled whenever the phase changes, and when a sync of the image has failed.
    ///   - isPrivileged: the kernel reads the disk's partition table only where all queues are.
    ///   - isConfined: see `Confinement`.
    init(
        number: Int, processors: [Int], device: UblkCharacterDevice, info: UblkDeviceInfo, image: Image, chain: [LayerFile],
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
                let engine = EngineQueue(
                    image: image, storages: chain.storages(on: ring.loop.ring), depth: info.queueDepth,
                    largestRequestBytes: info.maxIOSizeBytes, executor: ring.loop.executor)
                let target = EngineTarget(
                    engine: engine, of: image, ring: ring.loop.ring, memory: ring.memory,
                    whenFailed: { cs_eventfd_signal(changed) })
                if let failure = ring.bufferLockFailure {
                    warn("the I/O buffers may be swapped out: \(failure) (raise LimitMEMLOCK, ulimit -l)")
                }
                let queue = QueueLoop(ring: ring, target: target, mailbox: mailbox)
                enter(.serving)
                enter(.ended(queue.run()))
            } catch {
                enter(.failed(reason: "\(error)"))
            }
        }
    }

    /// Waits for the thread to end, and lets go of the queue. Once.
    func join() { thread?.join() }

    /// Before the queue's memory is allocated, so that it is near.
    private func bind(to processors: [Int]) {
        guard processors.count > 1 else { return }
        let result = cs_bind_thread(processors.map { Int32(clamping: $0) }, UInt64(processors.count))
        if result != 0 {
            warn("queue \(number) may not run where its requests come from: \(Errno(rawValue: -result)) (a cpuset, or taskset)")
        }
    }

    private func warn(_ sentence: String) { warningsLock.withLock { $0.append(sentence) } }

    private func enter(_ phase: Phase) {
        phaseLock.withLock { $0 = phase }
        cs_eventfd_signal(changed)
    }
}
