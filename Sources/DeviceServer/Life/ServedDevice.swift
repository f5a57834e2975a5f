import BlockStorage
import Logging
import Platform
import SystemPackage
import Ublk

/// A device that this process serves, until it is taken away or left to another server.
///
/// Belongs to the server's main thread. `add` and `recover` make one.
final class ServedDevice {
    let info: UblkDeviceInfo
    let session: ImageSession
    /// What takes rights: this process's own, or a broker's.
    let rights: any DeviceRights
    /// Of a new device.
    let startFiles: StartFiles?
    private let characterDevice: UblkCharacterDevice
    private let threads: QueueThreads
    private let log: Logger

    /// How long the slow steps may take: START reads the partition table through us, STOP waits for requests in flight.
    static let startTimeout = Duration.seconds(60)
    static let stopTimeout = UblkControlDevice.stopTimeout

    /// A device whose steps have succeeded.
    init(
        info: UblkDeviceInfo, session: ImageSession, rights: any DeviceRights, characterDevice: UblkCharacterDevice,
        threads: QueueThreads, startFiles: StartFiles? = nil, log: Logger
    ) {
        self.startFiles = startFiles
        self.info = info
        self.session = session
        self.rights = rights
        self.characterDevice = characterDevice
        self.threads = threads
        self.log = log
    }

    /// As `DiskWithdrawal.stop`. What waits for a base that is away fails where the disk goes all the same: what its users have
    /// asked for, and what is fetched for nobody, which the queues' threads would wait for.
    func stop(force: Bool, timeoutSeconds: Int = ControlRequest.defaultStopTimeoutSeconds) throws(ServerError) -> DiskUse? {
        var isGone = false
        defer { session.failBaseReads(isGone) }
        let use = try rights.stop(force: force, timeoutSeconds: timeoutSeconds) { session.failBaseReads(true) }
        isGone = use == nil
        return use
    }

    var blockDevicePath: String { UblkPaths.blockDevice(info.id) }

    /// The road to the queues' threads.
    var queues: DeviceQueues<EngineTarget<FileStorage>> { threads.queues }

    /// Signalled whenever a queue's thread ends, and when a sync of the image has failed.
    var queuesChanged: Int32 { threads.changed }

    /// Whether a queue's thread has ended: the device was stopped by somebody else, or a queue failed.
    var hasEndedQueue: Bool { threads.hasEnded }

    /// Nothing is served any more.
    var haveAllQueuesEnded: Bool { threads.haveAllEnded }

    /// Whether the device waits for another server when this one goes.
    var isRecoverable: Bool { info.features.contains(.userRecovery) }

    /// From now on what the device is asked for waits for another server, which `leave` leaves it to. So does what waits for a
    /// base that is away: this server waits for it no more.
    func beginLeaving() {
        precondition(isRecoverable, "the device would be gone")
        // In this order: who waits is answered by a queue that knows that it leaves, and does not tell the kernel.
        threads.leave()
        session.leaveBaseReads()
    }

    /// Leaves the device to another server, which was begun: answers the requests that are under way, makes everything durable
    /// and marks the image as clean.
    /// - Returns: how the image was left.
    func leave() throws(ServerError) -> ImageMark? {
        threads.join()
        defer { characterDevice.close() }
        return try session.close()
    }

    /// After `stop`, or when the queues have ended: closes the image, deletes the device, and reports the first thing that
    /// went wrong. Everything is tried.
    func remove() throws(ServerError) {
        threads.join()
        var failure: ServerError?
        do { try session.close() } catch { failure = error }
        characterDevice.close()
        var remains: DiskWithdrawal.Remains?
        do { remains = try rights.forgetDevice(isClosed: failure == nil) } catch { failure = failure ?? error }
        if remains?.number == true {
            log.warning("\(blockDevicePath) is gone, but somebody still has it open, and so its number is taken")
        }
        if failure == nil, let sentence = remains?.unwritten { failure = .notWrittenBack(sentence) }
        if let failure { throw failure }
    }
}

/// The steps that take back what has been done so far, the last one first; unless everything went well.
final class UndoList {
    private var steps: [() -> Void] = []

    func append(_ step: @escaping () -> Void) { steps.append(step) }

    func cancel() { steps = [] }

    func run() {
        while let step = steps.popLast() { step() }
    }
}
