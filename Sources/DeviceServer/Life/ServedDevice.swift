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
    private let characterDevice: UblkCharacterDevice
    private var threads: [QueueThread] = []
    /// The road to the queues' threads.
    let queues: DeviceQueues<EngineTarget<FileStorage>>
    /// What of its users' data was lost when the disk was taken away by force: sentences, of which the first will do.
    private let unwritten = Lock<[String]>([])
    private let log: Logger
    /// Signalled whenever a queue's thread starts to serve, or ends, and when a sync of the image has failed.
    let queuesChanged: Int32
    /// Whether partitions on the disk become disks of their own.
    private let scansPartitions: Bool

    /// How long the slow steps may take: START reads the partition table through us, STOP waits for requests in flight.
    static let startTimeout = Duration.seconds(60)
    static let stopTimeout = UblkControlDevice.stopTimeout

    var blockDevicePath: String { UblkPaths.blockDevice(info.id) }

    /// A device whose steps so far have succeeded; `add` and `recover` take the others.
    init(
        info: UblkDeviceInfo, session: ImageSession, control: UblkControlDevice, characterDevice: UblkCharacterDevice,
        queuesChanged: Int32, scansPartitions: Bool, log: Logger
    ) {
        self.info = info
        self.session = session
        self.control = control
        self.characterDevice = characterDevice
        self.queuesChanged = queuesChanged
        self.scansPartitions = scansPartitions
        self.log = log
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
                        isPrivileged: scansPartitions))
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

    /// Takes the disk away: with `force` even when it is in use.
    /// - Parameter timeoutSeconds: how long, with `force`, what its users have not written yet may take to be written.
    /// - Returns: who uses it, when nothing was done for that reason; nil when it is gone.
    func stop(force: Bool, timeoutSeconds: Int = ControlRequest.defaultStopTimeoutSeconds) throws(ServerError) -> DiskUse? {
        if force {
            writeBack(timeoutSeconds: timeoutSeconds)
            do { try control.stopDevice(info.id, timeout: ServedDevice.stopTimeout) } catch { throw .control(error) }
            return nil
        }
        var use: DiskUse?
        // udev looks at a disk for a moment whenever somebody who has written to it closes it.
        let end = ContinuousClock.now + .seconds(5)
        for _ in 0..<20 {
            use = try stopUnused()
            guard use?.mayPass == true, ContinuousClock.now < end else { break }
            usleep(100_000)
        }
        return use
    }

    /// Has everything that the disk's users have not written yet written back before the disk is stopped: with recovery the
    /// kernel answers whatever it writes after that with an error (`ublk_force_abort_dev`, Linux 6.12 to 7).
    private func writeBack(timeoutSeconds: Int) {
        let path = blockDevicePath
        let done = cs_eventfd()
        guard done >= 0 else { return noteUnwritten("\(path) cannot be written back: \(Errno(rawValue: -done))") }
        let thread: BackgroundThread
        do {
            thread = try BackgroundThread { [self] in
                for sentence in OwnDiskProcess.write(.writeBack, ofDiskAt: path) { noteUnwritten(sentence) }
                cs_eventfd_signal(done)
            }
        } catch {
            close(done)
            return noteUnwritten("\(path) cannot be written back: \(error)")
        }
        var polled = pollfd(fd: done, events: Int16(POLLIN), revents: 0)
        if poll(&polled, 1, Int32(clamping: timeoutSeconds * 1000)) > 0 {
            thread.join()
            close(done)
        } else {
            // It ends when the disk goes, and signals then: the descriptor stays.
            noteUnwritten("\(path) was not written back within \(timeoutSeconds) seconds")
            thread.detach()
        }
    }

    private func noteUnwritten(_ sentence: String) {
        log.warning("\(sentence)")
        unwritten.withLock { $0.append(sentence) }
    }

    /// Takes the disk away unless anybody uses it.
    private func stopUnused() throws(ServerError) -> DiskUse? {
        let path = blockDevicePath
        let hold: DiskHold
        do throws(DiskUse) {
            // Where the kernel counts who has it open, it is asked in the end.
            hold = try DiskHold(ofDiskAt: path, looksForUsers: !info.features.contains(.safeStop))
        } catch { return error }
        // What is dirty in the page cache of the disk: STOP itself may or may not write it back. Nothing, nearly always.
        if hold.descriptor >= 0, cs_has_dirty_pages(hold.descriptor) != 0 {
            _ = OwnDiskProcess.write(.flush, ofDiskAt: path)
        }
        do { return try control.stopUnused(info, hold) } catch { throw .control(error) }
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
        do {
            if try !control.forgetDevice(info.id) {
                log.warning("\(blockDevicePath) is gone, but somebody still has it open, and so its number is taken")
            }
        } catch {
            failure = failure ?? .control(error)
        }
        close(queuesChanged)
        if failure == nil, let sentence = unwritten.withLock({ $0.first }) { failure = .notWrittenBack(sentence) }
        if let failure { throw failure }
    }
}
