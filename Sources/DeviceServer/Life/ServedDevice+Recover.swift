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
    ///
    /// The tables are read before the driver knows of this server; those of an untrusted image when all has been done that takes
    /// rights, and these have been given away. Not on a kernel that does not survive a takeover that is cut short (`Takeover`):
    /// there an image that cannot be opened must not come in between, and the rights go when it has been.
    /// - Parameters:
    ///   - registry: knows of which files the device was made, and how the old server has left the image, where it had the
    ///     time to.
    ///   - record: what it is to know from now on, of a device with that image's file.
    ///   - willServe: called before the device goes on. As `willAppear` of `add`.
    /// - Returns: with the record as it is now.
    static func recover(
        _ configuration: ServerConfiguration, registry: DeviceRegistry, process: ServerProcess, log: Logger,
        record: (UblkDeviceInfo, ImageFile) throws(ServerError) -> DeviceRecord,
        willServe: (UblkDeviceInfo, UndoList) throws(ServerError) -> Broker?
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
        if configuration.isUntrusted { try Confinement.prepare() }
        let takeover = try Takeover(of: id, registry, driver: driver, serverProcess: info.serverProcess)
        let files = try ImageFiles(
            configuration, continuing: old,
            willChange: { chain throws(ServerError) in
                try process.takeSignals()
                var new = try record(info, chain[0].file)
                new.backingFiles = chain.dropFirst().map(\.source.identity)
                new.base = chain.base
                new.nextSizeBytes = old.nextSizeBytes
                new.unfinishedMerge = old.unfinishedMerge
                try takeover.open(new)
            })
        let image = OpeningImage(files)
        undo.append { takeover.giveUp(leaving: image.close().mark) }
        func openImage() throws(ServerError) -> ImageSession {
            let session = try image.open(log)
            guard let parameters, session.fits(parameters, growingTo: old.nextSizeBytes) else {
                throw .imageChanged(path: configuration.imagePath, id: id)
            }
            try session.keepBlocks(of: parameters)
            return session
        }
        let early = configuration.isUntrusted && takeover.canBeCutShort ? nil : try openImage()
        do { try control.waitForServerDeath(id, timeout: noticeTimeout) } catch { throw .control(error) }
        try takeover.begin(endsElsewhere: configuration.isUntrusted)
        do { try control.startRecovery(id, timeout: startTimeout) } catch {
            takeover.refused()
            throw .control(error)
        }
        let characterDevice = try openCharacterDevice(id)
        undo.append { characterDevice.close() }
        let threads = try QueueThreads(count: info.queueCount, log: log)
        undo.append {
            threads.leave()
            threads.join()
        }
        try threads.open(info, characterDevice, control, configuration)
        var rights: any DeviceRights = OwnRights(of: info, control, configuration, log: log)
        if let broker = try willServe(info, undo) {
            undo.cancel()
            undo.append {
                threads.leave()
                threads.join()
                let mark = image.close().mark
                characterDevice.close()
                try? broker.note(.left(mark), own: old)
            }
            try Confinement.enter()
            rights = broker
        }
        let session: ImageSession
        if let early { session = early } else { session = try openImage() }
        try threads.serve(session)
        try rights.endRecovery()
        undo.cancel()
        let device = ServedDevice(
            info: info, session: session, rights: rights, characterDevice: characterDevice, threads: threads, log: log)
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
