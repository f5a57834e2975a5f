import BlockStorage
import CSupport
import Glibc
import Logging
import SystemPackage
import Ublk

/// The threads of a device's queues: they open their queues, wait for the image, serve it, and end.
///
/// Belongs to the server's main thread.
final class QueueThreads {
    /// The road to them.
    let queues: DeviceQueues<EngineTarget<FileStorage>>
    /// Signalled whenever a thread has opened its queue, begins to serve, or ends, and when a sync of the image has failed.
    let changed: Int32
    private var threads: [QueueThread] = []
    private let log: Logger

    init(count: Int, log: Logger) throws(ServerError) {
        changed = cs_eventfd()
        guard changed >= 0 else { throw .ring(Errno(rawValue: -changed)) }
        queues = DeviceQueues(count: count)
        self.log = log
    }

    /// Returns when every queue has what it takes to serve, but an image.
    func open(
        _ info: UblkDeviceInfo, _ device: UblkCharacterDevice, _ control: UblkControlDevice, _ configuration: ServerConfiguration
    ) throws(ServerError) {
        for number in 0..<info.queueCount {
            do {
                threads.append(
                    try QueueThread(
                        number: number, processors: processors(ofQueue: number, of: info, control), device: device, info: info,
                        mailbox: queues.mailboxes[number], changed: changed, isPrivileged: configuration.scansPartitions,
                        isConfined: configuration.isUntrusted))
            } catch {
                throw .queue(number: number, reason: "\(error)")
            }
        }
        try wait(while: .starting)
        var warnings: [String] = []
        for warning in threads.flatMap(\.warnings) where !warnings.contains(warning) { warnings.append(warning) }
        for warning in warnings { log.warning("\(warning)") }
    }

    /// Returns when every queue fetches.
    func serve(_ session: ImageSession) throws(ServerError) {
        let (image, chain) = (session.image, session.chain)
        for thread in threads { thread.serve(image, chain) }
        try wait(while: .opened)
    }

    private func wait(while phase: QueueThread.Phase) throws(ServerError) {
        while threads.contains(where: { $0.phase == phase }) { cs_eventfd_wait(changed) }
        for thread in threads {
            if case .failed(let reason) = thread.phase { throw .queue(number: thread.number, reason: reason) }
        }
    }

    /// None where the driver does not say: then the thread may run anywhere.
    private func processors(ofQueue number: Int, of info: UblkDeviceInfo, _ control: UblkControlDevice) -> [Int] {
        do { return try control.queueAffinity(info.id, queue: number) } catch {
            log.warning("\(error)")
            return []
        }
    }

    /// Whether one has ended: the device was stopped by somebody else, or a queue failed.
    var hasEnded: Bool { threads.contains(where: \.hasEnded) }

    /// Nothing is served any more.
    var haveAllEnded: Bool { threads.allSatisfy(\.hasEnded) }

    /// They finish what they have, and end.
    func leave() { queues.leave() }

    /// Waits for their ends, which those that have no image yet come to at once, and lets go of the queues.
    func join() {
        for thread in threads { thread.join() }
        for thread in threads {
            if case .ended(.refused(let tag, let errno)) = thread.phase {
                log.error("queue \(thread.number): the driver refused a command for tag \(tag): \(errno)")
            }
        }
        threads = []
    }

    deinit { close(changed) }
}
