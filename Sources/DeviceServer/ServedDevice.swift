import CSupport
import Glibc
import Logging
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// A device from ADD_DEV to DEL_DEV: the transaction of `add`, and its exact reverse.
///
/// Belongs to the server's main thread. Making it either succeeds with a usable disk or undoes every step it has taken.
final class ServedDevice {
    let info: UblkDeviceInfo
    let session: ImageSession
    private let control: UblkControlDevice
    private let characterDevice: UblkCharacterDevice
    private var threads: [QueueThread] = []
    private let log: Logger
    /// Signalled whenever a queue's thread starts to serve, or ends.
    let queuesChanged: Int32

    /// How long the slow steps may take: START reads the partition table through us, STOP waits for requests in flight.
    private static let startTimeout = Duration.seconds(60)
    private static let stopTimeout = Duration.seconds(60)

    var blockDevicePath: String { UblkPaths.blockDevice(info.id) }

    init(_ configuration: ServerConfiguration, log: Logger) throws(ServerError) {
        self.log = log
        session = try ImageSession(configuration)
        if session.image.replayedChanges > 0 {
            log.notice("the last server died; its \(session.image.replayedChanges) unwritten changes of the tables are in the image now")
        }
        if session.image.droppedEntries > 0 {
            log.notice(
                """
                the image was not closed cleanly; \(session.image.droppedEntries) table entries that named no cluster \
                were dropped
                """)
        }
        if let limitation = session.image.geometry.qemuLimitation, limitation.preventsOpening {
            log.warning("\(limitation)")
        }
        if let reason = session.image.replayRefusal {
            log.warning("the last server died, and what it had not yet written is lost: \(reason)")
        }
        var undo: [() -> Void] = []
        var isMade = false
        defer { if !isMade { for step in undo.reversed() { step() } } }
        let session = self.session
        undo.append { try? session.close() }

        let events = cs_eventfd()
        guard events >= 0 else { throw .ring(Errno(rawValue: -events)) }
        queuesChanged = events
        undo.append { _ = Glibc.close(events) }

        let control: UblkControlDevice
        let info: UblkDeviceInfo
        do {
            control = try UblkControlDevice()
            info = try control.addDevice(
                id: configuration.deviceID, queues: configuration.queues, queueDepth: configuration.queueDepth,
                maxIOSizeBytes: configuration.maxIOSizeBytes, features: [.ioctlEncoding])
        } catch {
            throw .control(error)
        }
        self.control = control
        self.info = info
        undo.append { try? control.deleteDevice(info.id, timeout: ServedDevice.stopTimeout) }

        let characterDevice: UblkCharacterDevice
        do { characterDevice = try UblkCharacterDevice.open(id: info.id) } catch { throw .characterDevice(error) }
        self.characterDevice = characterDevice
        undo.append { characterDevice.close() }

        do {
            try control.setParameters(ServedDevice.parameters(of: session, configuration, info), of: info)
        } catch {
            throw .control(error)
        }
        // From here on every stored property is set: the steps that follow use methods.
        undo.append { [self] in
            // Commands that wait for requests come back aborted, and the threads end.
            try? control.stopDevice(info.id, timeout: ServedDevice.stopTimeout)
            for thread in threads { thread.join() }
        }
        try startQueues()
        do {
            try control.startDevice(info.id, serverProcess: getpid(), timeout: ServedDevice.startTimeout)
        } catch {
            throw .control(error)
        }
        try waitForNode()
        isMade = true
    }

    private static func parameters(
        of session: ImageSession, _ configuration: ServerConfiguration, _ info: UblkDeviceInfo
    ) -> UblkParameters {
        let geometry = session.image.geometry
        let blockShift = UInt8(session.blockSizeBytes.trailingZeroBitCount)
        var attributes: UblkParameters.Attributes = [.volatileCache, .forceUnitAccess]
        if configuration.isReadOnly { attributes.insert(.readOnly) }
        let basic = UblkParameters.Basic(
            attributes: attributes, logicalBlockShift: blockShift, physicalBlockShift: max(blockShift, 12),
            optimalIOShift: UInt8(geometry.clusterShift), minimumIOShift: max(blockShift, 12),
            maxSectors: UInt32(info.maxIOSizeBytes / 512),
            deviceSectors: session.image.sizeBytes / QEDLimits.sectorSizeBytes)
        guard !configuration.isReadOnly else { return UblkParameters(basic: basic) }
        return UblkParameters(
            basic: basic, discard: UblkParameters.Discard(granularityBytes: UInt32(geometry.clusterSizeBytes)))
    }

    private func startQueues() throws(ServerError) {
        for number in 0..<info.queueCount {
            do {
                threads.append(
                    try QueueThread(
                        number: number, device: characterDevice, info: info, image: session.image,
                        chain: session.chain, changed: queuesChanged))
            } catch {
                throw .queue(number: number, reason: "\(error)")
            }
        }
        while threads.contains(where: { $0.phase == .starting }) { cs_eventfd_wait(queuesChanged) }
        for thread in threads {
            if case .failed(let reason) = thread.phase { throw .queue(number: thread.number, reason: reason) }
        }
    }

    /// devtmpfs makes the node during START_DEV; udev may be changing its mode or looking at it.
    private func waitForNode() throws(ServerError) {
        var code: Int32 = 0
        for _ in 0..<500 {
            let descriptor = open(blockDevicePath, O_RDONLY | O_CLOEXEC)
            if descriptor >= 0 {
                close(descriptor)
                return
            }
            code = errno
            usleep(10_000)
        }
        throw .notUsable(path: blockDevicePath, Errno(rawValue: code))
    }

    /// Whether a queue's thread has ended: the device was stopped by somebody else, or a queue failed.
    var hasEndedQueue: Bool {
        threads.contains { if case .ended = $0.phase { true } else { false } }
    }

    /// Takes the disk away: with `force` even when it is in use.
    /// - Returns: who uses it, when nothing was done for that reason; nil when it is gone.
    func stop(force: Bool) throws(ServerError) -> DiskUse? {
        if force {
            let disk = open(blockDevicePath, O_RDONLY | O_CLOEXEC)
            defer { if disk >= 0 { close(disk) } }
            _ = fsync(disk)
            do { try control.stopDevice(info.id, timeout: ServedDevice.stopTimeout) } catch { throw .control(error) }
            return nil
        }
        var use: DiskUse?
        // udev looks at a disk for a moment whenever somebody who has written to it closes it.
        for _ in 0..<20 {
            use = try stopUnused()
            guard use?.mayPass == true else { break }
            usleep(100_000)
        }
        return use
    }

    /// Takes the disk away unless anybody has it open.
    private func stopUnused() throws(ServerError) -> DiskUse? {
        let disk = open(blockDevicePath, O_RDONLY | O_CLOEXEC | O_EXCL)
        if disk < 0 && errno == EBUSY { return DiskUse(path: blockDevicePath, users: nil) }
        // What is dirty in the page cache of the disk: STOP itself may or may not write it back.
        _ = fsync(disk)
        do throws(UblkControlError) {
            guard info.features.contains(.safeStop) else {
                // Held exclusively meanwhile, so that nobody can mount it in between.
                defer { if disk >= 0 { close(disk) } }
                let users = DiskUse.processes(usingDeviceAt: blockDevicePath)
                if !users.isEmpty { return DiskUse(path: blockDevicePath, users: users) }
                try control.stopDevice(info.id, timeout: ServedDevice.stopTimeout)
                return nil
            }
            // The kernel counts who has it open, and that must not be us.
            if disk >= 0 { close(disk) }
            try control.tryStopDevice(info.id, timeout: ServedDevice.stopTimeout)
            return nil
        } catch {
            guard error.errno == .resourceBusy else { throw .control(error) }
            return DiskUse(path: blockDevicePath, users: DiskUse.processes(usingDeviceAt: blockDevicePath))
        }
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
        if let failure { throw failure }
    }
}
