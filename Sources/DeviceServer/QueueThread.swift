import BlockStorage
import CSupport
import Glibc
import IOURing
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
    private let changed: Int32
    private let body: (QueueThread) -> Void
    private var thread: BackgroundThread?

    var phase: Phase { phaseLock.withLock { $0 } }

    /// Starts the thread.
    /// - Parameter changed: an eventfd that is signalled whenever the phase changes.
    init(
        number: Int, device: UblkCharacterDevice, info: UblkDeviceInfo, image: Image, chain: [ChainFile],
        departure: ServerDeparture, changed: Int32
    ) throws(Errno) {
        self.number = number
        self.changed = changed
        body = { thread in
            do {
                let queue = try QueueLoop(device: device, info: info, queue: number, departure: departure) {
                    loop, memory in
                    EngineTarget(
                        engine: EngineQueue(
                            image: image, storages: chain.map { $0.file.storage(on: loop.ring) },
                            depth: info.queueDepth, largestRequestBytes: info.maxIOSizeBytes, executor: loop.executor),
                        memory: memory)
                }
                thread.enter(.serving)
                thread.enter(.ended(queue.run()))
            } catch {
                thread.enter(.failed(reason: "\(error)"))
            }
        }
        thread = try BackgroundThread { [self] in body(self) }
    }

    /// Waits for the thread to end. Once.
    func join() { thread?.join() }

    private func enter(_ phase: Phase) {
        phaseLock.withLock { $0 = phase }
        cs_eventfd_signal(changed)
    }
}
