import Glibc
import Logging
import SystemPackage
import Ublk

extension ServedDevice {
    /// Makes a device of an image: either the disk is usable, or every step that was taken is undone.
    ///
    /// The tables of the image are read before there is anything of a device; those of an untrusted one when there is all that
    /// takes rights, and these have been given away.
    /// - Parameter willAppear: called before the kernel has the disk, and tells everybody of it, udev among them. What was done
    ///   there is undone with the rest; with it comes how the image's file is accessed, if that is known. Returns what has the
    ///   server's rights from now on; nil: the server.
    static func add(
        _ configuration: ServerConfiguration, process: ServerProcess, log: Logger,
        willAppear: (UblkDeviceInfo, ImageFiles, _ isDirect: Bool?, UndoList) throws(ServerError) -> Broker?
    ) throws(ServerError) -> ServedDevice {
        let undo = UndoList()
        defer { undo.run() }
        // Before the image is opened, which writes to it.
        if configuration.zeroCopy == .on { _ = try features(for: configuration, openControl(), takesPages: true) }
        do throws(DeviceLinkError) { try configuration.link?.check() } catch { throw .symlink(error) }
        let startFiles = try StartFiles(configuration)
        undo.append { startFiles.abandon() }
        let files = try ImageFiles(configuration, recorder: startFiles.recorder)
        let image = OpeningImage(files)
        undo.append { _ = image.close() }
        try startFiles.check(files)
        func openImage() throws(ServerError) -> ImageSession {
            let session = try image.open(log)
            _ = try session.chooseBlocks(wantedBytes: configuration.blockSizeBytes)
            return session
        }
        let trusted = configuration.isUntrusted ? nil : try openImage()
        try process.takeSignals()

        let control = try openControl()
        if configuration.isUntrusted { try Confinement.prepare() }
        let info: UblkDeviceInfo
        // The blocks that an untrusted one would choose for itself are not known yet.
        let takesPages = trusted != nil ? files.takesPages : files.takesPages(inBlocksOf: configuration.blockSizeBytes ?? 512)
        let wanted = try features(for: configuration, control, takesPages: takesPages)
        do {
            info = try control.addDevice(
                id: configuration.deviceID, queues: configuration.queues, queueDepth: configuration.queueDepth,
                maxIOSizeBytes: configuration.maxIOSizeBytes, features: wanted,
                // What the device's record is known by.
                serverFlags: .random(in: 1 ... .max))
        } catch {
            throw .control(error)
        }
        undo.append { try? control.deleteDevice(info.id, timeout: stopTimeout) }
        let characterDevice = try openCharacterDevice(info.id)
        undo.append { characterDevice.close() }
        let threads = try QueueThreads(count: info.queueCount, log: log)
        undo.append {
            // Commands that wait for requests come back aborted, and the threads end.
            try? control.stopDevice(info.id, timeout: stopTimeout)
            threads.join()
        }
        try threads.open(info, characterDevice, control, configuration)
        var rights: any DeviceRights = OwnRights(of: info, control, configuration, log: log)
        if let broker = try willAppear(info, files, trusted?.blocks?.isDirect, undo) {
            undo.cancel()
            undo.append {
                // Whatever it has come to: nothing of it may be left, and none of it is this process's to take away any more.
                _ = try? broker.stop(force: true, timeoutSeconds: 5)
                threads.join()
                let isClosed = image.close().isClosed
                characterDevice.close()
                _ = try? broker.forgetDevice(isClosed: isClosed)
            }
            try Confinement.enter()
            rights = broker
        }
        let session: ImageSession
        if let trusted { session = trusted } else { session = try openImage() }
        try rights.describe(session.shape)
        try threads.serve(session)
        for warning in try rights.start() { log.warning("\(warning)") }
        undo.cancel()
        return ServedDevice(
            info: info, session: session, rights: rights, characterDevice: characterDevice, threads: threads,
            startFiles: startFiles, log: log)
    }

    private static func openControl() throws(ServerError) -> UblkControlDevice {
        do { return try UblkControlDevice() } catch { throw .control(error) }
    }

    private static func features(
        for configuration: ServerConfiguration, _ control: UblkControlDevice, takesPages: Bool
    ) throws(ServerError) -> UblkFeatures {
        let offered: UblkFeatures?
        do { offered = try control.features() } catch { throw .control(error) }
        return try configuration.features(offered: offered, takesPages: takesPages)
    }

    static func openCharacterDevice(_ id: UInt32) throws(ServerError) -> UblkCharacterDevice {
        do { return try UblkCharacterDevice.open(id: id) } catch { throw .characterDevice(error) }
    }
}
