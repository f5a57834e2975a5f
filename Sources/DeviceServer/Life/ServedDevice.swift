import BlockStorage
import CSupport
import Glibc
import IOURing
import Logging
import Platform
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// A device that this process serves, until it is taken away or left to another server.
///
/// Belongs to the server's main thread. `add` and `recover` make one.
final class ServedDevice {
    let info: UblkDeviceInfo
    let session: ImageSession
    let control: UblkControlDevice
    /// What takes rights: this process's own, or a broker's.
    var rights: any DeviceRights
    private let characterDevice: UblkCharacterDevice
    private var threads: [QueueThread] = []
    /// The road to the queues' threads.
    let queues: DeviceQueues<EngineTarget<FileStorage>>
    private let log: Logger
    /// Signalled whenever a queue's thread starts to serve, or ends, and when a sync of the image has failed.
    let queuesChanged: Int32
    /// Whether partitions on the disk become disks of their own.
    private let scansPartitions: Bool
    /// Its threads give up what they may do: see `Confinement`.
    let isConfined: Bool

    /// How long the slow steps may take: START reads the partition table through us, STOP waits for requests in flight.
    static let startTimeout = Duration.seconds(60)
    static let stopTimeout = UblkControlDevice.stopTimeout

    /// As `DiskWithdrawal.stop`.
    func stop(force: Bool, timeoutSeconds: Int = ControlRequest.defaultStopTimeoutSeconds) throws(ServerError) -> DiskUse? {
        try rights.stop(force: force, timeoutSeconds: timeoutSeconds)
    }

    var blockDevicePath: String { UblkPaths.blockDevice(info.id) }

    /// A device whose steps so far have succeeded; `add` and `recover` take the others.
    init(
        info: UblkDeviceInfo, session: ImageSession, control: UblkControlDevice, characterDevice: UblkCharacterDevice,
        queuesChanged: Int32, _ configuration: ServerConfiguration, log: Logger
    ) {
        self.info = info
        self.session = session
        self.control = control
        self.characterDevice = characterDevice
        self.queuesChanged = queuesChanged
        scansPartitions = configuration.scansPartitions
        isConfined = configuration.isUntrusted
        self.log = log
        rights = OwnRights(DiskWithdrawal(of: info, control, log: log), DeviceRegistry())
        queues = DeviceQueues(count: info.queueCount)
    }

    /// Returns when every queue has set itself up and fetches.
    func startQueues() throws(ServerError) {
        for number in 0..<info.queueCount {
            do {
                threads.append(
                    try QueueThread(
                        number: number, processors: processors(ofQueue: number), device: characterDevice, info: info,
                        image: session.image, chain: session.chain, mailbox: queues.mailboxes[number], changed: queuesChanged,
                        isPrivileged: scansPartitions, isConfined: isConfined))
            } catch {
                throw .queue(number: number, reason: "\(error)")
            }
        }
        while threads.contains(where: { $0.phase == .starting }) { cs_eventfd_wait(queuesChanged) }
        for thread in threads {
            if case .failed(let reason) = thread.phase { throw .queue(number: thread.number, reason: reason) }
        }
        var warnings: [String] = []
        for warning in threads.flatMap(\.warnings) where !warnings.contains(warning) { warnings.append(warning) }
        for warning in warnings { log.warning("\(warning)") }
    }

    /// None where the driver does not say: then the thread may run anywhere.
    private func processors(ofQueue number: Int) -> [Int] {
        do { return try control.queueAffinity(info.id, queue: number) } catch {
            log.warning("\(error)")
            return []
        }
    }

    /// The queues finish what they have, and end; the device waits for another server.
    func leaveQueues() { queues.leave() }

    func joinQueues() {
        for thread in threads { thread.join() }
    }

    /// Returns when the nodes of the disk and of its partitions are there, and can be opened.
    /// - Throws: where the disk cannot be used. A partition's node that does not come is only told.
    func waitForNodes() throws(ServerError) {
        let byKernel = !info.features.contains(.noPartitionScan)
        let nodes = DiskNodes(
            ofDiskAt: blockDevicePath, tableReader: !scansPartitions ? .nobody : byKernel ? .kernel : .server)
        do throws(Errno) {
            let missing = try nodes.wait(timeout: ServedDevice.startTimeout)
            for path in missing { log.warning("\(path) is missing; see that this /dev is a devtmpfs") }
        } catch {
            throw .notUsable(path: blockDevicePath, error)
        }
    }

    /// Whether a queue's thread has ended: the device was stopped by somebody else, or a queue failed.
    var hasEndedQueue: Bool {
        threads.contains { if case .ended = $0.phase { true } else { false } }
    }

    /// Nothing is served any more.
    var haveAllQueuesEnded: Bool {
        threads.allSatisfy { if case .ended = $0.phase { true } else { false } }
    }

    /// Whether the device waits for another server when this one goes.
    var isRecoverable: Bool { info.features.contains(.userRecovery) }

    /// Leaves the device to another server: answers the requests that are under way, makes everything durable and marks the
    /// image as clean. What the device is asked for from then on waits.
    /// - Returns: how the image was left.
    func leave() throws(ServerError) -> ImageMark? {
        precondition(isRecoverable, "the device would be gone")
        leaveQueues()
        joinQueues()
        defer {
            characterDevice.close()
            close(queuesChanged)
        }
        return try session.close()
    }

    /// After `stop`, or when the queues have ended: closes the image, deletes the device, and reports the first thing that
    /// went wrong. Everything is tried.
    func remove() throws(ServerError) {
        for thread in threads {
            thread.join()
            if case .ended(.refused(let tag, let errno)) = thread.phase {
                log.error("queue \(thread.number): the driver refused a command for tag \(tag): \(errno)")
            }
        }
        var failure: ServerError?
        do { try session.close() } catch { failure = error }
        characterDevice.close()
        var remains: DiskWithdrawal.Remains?
        do { remains = try rights.forgetDevice(isClosed: failure == nil) } catch { failure = failure ?? error }
        if remains?.number == true {
            log.warning("\(blockDevicePath) is gone, but somebody still has it open, and so its number is taken")
        }
        close(queuesChanged)
        if failure == nil, let sentence = remains?.unwritten { failure = .notWrittenBack(sentence) }
        if let failure { throw failure }
    }
}
