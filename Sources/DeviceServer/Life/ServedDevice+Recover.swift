import BlockStorage
import Glibc
import Logging
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

extension ServedDevice {
    /// Serves a device whose server has died, or left it. Requests that the old server had not answered come again.
    ///
    /// Whatever is thrown, the device goes on waiting, and its image is as it was or as the old server would have left it
    /// with one more commit.
    /// - Parameters:
    ///   - registry: knows of which files the device was made, and how the old server has left the image, where it had the
    ///     time to.
    ///   - record: what it is to know from now on, of a device with that image's file.
    /// - Returns: with the record as it is now.
    static func recover(
        _ configuration: ServerConfiguration, registry: DeviceRegistry, process: ServerProcess, log: Logger,
        record: (UblkDeviceInfo, ImageFile) throws(ServerError) -> DeviceRecord
    ) throws(ServerError) -> (ServedDevice, DeviceRecord) {
        guard let id = configuration.deviceID else { preconditionFailure("recovery of no device") }
        if let what = OwnDiskHolds.first(ofDevice: id) { throw .waitsForItself(what: what, id: id) }
        let undo = UndoList()
        defer { undo.run() }
        // A del that has begun comes first, and then there is no device any more.
        let lock: DeviceLock
        do { lock = try DeviceLock(ofDevice: id) } catch { throw .isBusy(error) }
        defer { lock.release() }
        let control: UblkControlDevice
        let driver: UblkFeatures?
        let info: UblkDeviceInfo
        let parameters: UblkParameters?
        do {
            control = try UblkControlDevice()
            driver = try control.features()
            info = try control.deviceInfo(id)
            parameters = try control.parameters(id)
        } catch {
            throw .control(error)
        }
        guard info.features.contains(.userRecovery) else { throw .notRecoverable(id: id) }
        guard let old = registry.record(of: id), old.isOf(info) else { throw .notOurs(id: id) }
        // Another server of it, which has come first.
        if old.server.isRunning, old.server.id != getpid() {
            throw .chain(.image(.file(.inUse(path: configuration.imagePath, by: [])), backingOf: nil))
        }
        let takeover = try Takeover(of: id, registry, driver: driver, serverProcess: info.serverProcess)
        let session = try ImageSession(
            configuration, continuing: old,
            willChange: { file, backingFiles throws(ServerError) in
                try process.takeSignals()
                var new = try record(info, file)
                new.backingFiles = backingFiles
                new.nextSizeBytes = old.nextSizeBytes
                new.unfinishedMerge = old.unfinishedMerge
                try takeover.open(new)
            })
        undo.append {
            let mark = try? session.close()
            takeover.giveUp(leaving: mark)
        }
        session.reportReplay(to: log)
        guard let parameters, session.fits(parameters, growingTo: old.nextSizeBytes) else {
            throw .imageChanged(path: configuration.imagePath, id: id)
        }
        try session.keepBlocks(of: parameters)
        let queuesChanged = try openEvents(undo)
        do { try control.waitForServerDeath(id, timeout: noticeTimeout) } catch { throw .control(error) }
        try takeover.begin()
        do { try control.startRecovery(id, timeout: startTimeout) } catch {
            takeover.refused()
            throw .control(error)
        }
        let characterDevice = try openCharacterDevice(id, undo)
        let device = ServedDevice(
            info: info, session: session, control: control, characterDevice: characterDevice,
            queuesChanged: queuesChanged, configuration, log: log)
        undo.append {
            device.leaveQueues()
            device.joinQueues()
        }
        try device.startQueues()
        do {
            // Waits for the last tag.
            try control.endRecovery(id, serverProcess: getpid(), timeout: startTimeout)
        } catch {
            throw .control(error)
        }
        undo.cancel()
        return (device, takeover.end())
    }

    /// How long Linux 6.12 can take to notice that a server died while it had every tag of a queue.
    private static let noticeTimeout = Duration.seconds(40)
}

extension ImageSession {
    /// Whether the image is as long as what the device was made of. Its blocks fit whatever they are: see `BlockChoice`.
    /// - Parameter nextSizeBytes: that the image may have already, and the disk not yet: `DiskGrowth`.
    fileprivate func fits(_ parameters: UblkParameters, growingTo nextSizeBytes: UInt64?) -> Bool {
        let diskBytes = parameters.basic.deviceSectors.multipliedReportingOverflow(by: QEDLimits.sectorSizeBytes)
        guard !diskBytes.overflow else { return false }
        return diskBytes.partialValue == image.sizeBytes
            || nextSizeBytes == image.sizeBytes && diskBytes.partialValue < image.sizeBytes
    }

    /// What is to be said of answered writes that are gone: a sync had failed under the last server.
    var loss: String? {
        let count = image.leftOutChanges + changesLeftOutOfSnapshot
        guard count > 0 else { return nil }
        return "a sync of the image had failed: \(count) changes of the tables, whose data it may have lost, were "
            + "left out, so those clusters read as before; check what is on the disk"
    }

    /// Tells what was found of the last server's work.
    func reportReplay(to log: Logger) {
        if image.replayedChanges > 0 {
            log.notice(
                "the last server died; its \(image.replayedChanges) unwritten changes of the tables are in the image now")
        }
        if let loss { log.warning("\(loss)") }
        if image.droppedEntries > 0 {
            log.notice(
                "the image was not closed cleanly; \(image.droppedEntries) table entries that named no cluster were dropped")
        }
        if let limitation = image.geometry.qemuLimitation, limitation.preventsOpening { log.warning("\(limitation)") }
        if let reason = image.replayRefusal {
            log.warning("the last server died, and what it had not yet written is lost: \(reason)")
        }
    }
}
