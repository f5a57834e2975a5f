import BlockStorage
import Glibc
import Logging
import Platform
import QEDChain
import SystemPackage
import Ublk

// How a server gets its device, with what others know of it, and gives up what it does not need any more.
extension Server {
    /// With its record and its control socket, which are there before the disk of a new one: udev asks for its name as soon as
    /// it appears, and others may want to stop it.
    func makeDevice() throws(ServerError) -> (ServedDevice, DeviceRecord, ControlSocketServer) {
        guard !configuration.recovers else { return try recoverDevice() }
        var made: (record: DeviceRecord, socket: ControlSocketServer)?
        let device = try ServedDevice.add(
            configuration, process: process, log: log,
            willAppear: { info, session, undo throws(ServerError) in
                let record = try self.register(info, session)
                undo.append { try? self.registry.remove(record) }
                let socket = try self.makeSocket(info)
                undo.append { socket.close() }
                made = (record, socket)
            })
        guard let made else { preconditionFailure("a device appeared without a record") }
        do { try configuration.name?.makeLink(to: device.info.id) } catch {
            _ = try? device.stop(force: true)
            try? device.remove()
            try? registry.remove(made.record)
            made.socket.close()
            throw .link(path: configuration.name?.link ?? "", error)
        }
        return (device, made.record, made.socket)
    }

    private func recoverDevice() throws(ServerError) -> (ServedDevice, DeviceRecord, ControlSocketServer) {
        var (device, record) = try ServedDevice.recover(
            configuration, registry: registry, process: process, log: log,
            record: { info, file throws(ServerError) in try self.record(of: info, file) })
        if let isDirect = device.session.blocks?.isDirect, record.isDirect != isDirect {
            record.isDirect = isDirect
            // For list alone.
            try? registry.record(record)
        }
        // It is there, unless somebody has removed it.
        try? record.name?.makeLink(to: record.deviceID)
        do { return (device, record, try makeSocket(device.info)) } catch {
            record.leftImage = try? device.leave()
            try? registry.record(record)
            throw error
        }
    }

    private func makeSocket(_ info: UblkDeviceInfo) throws(ServerError) -> ControlSocketServer {
        do { return try ControlSocketServer(deviceID: info.id) } catch { throw .socket(error) }
    }

    private func register(_ info: UblkDeviceInfo, _ session: ImageSession) throws(ServerError) -> DeviceRecord {
        var record = try self.record(of: info, session.chain[0].file)
        record.backingFiles = session.backingFiles
        record.isDirect = session.blocks?.isDirect
        do { try registry.record(record) } catch { throw .registry(error) }
        // After it is written: of two that want one name at the same time at least one sees the other.
        if let name = record.name, let other = registry.list().first(where: { $0.name == name && $0.deviceID != info.id }),
            other.server.isRunning || ((try? UblkControlDevice().device(of: other, timeout: .seconds(2))) ?? nil) != nil
        {
            try? registry.remove(record)
            throw .nameTaken(name, id: other.deviceID)
        }
        return record
    }

    /// - Parameter file: the image's.
    private func record(of info: UblkDeviceInfo, _ file: ImageFile) throws(ServerError) -> DeviceRecord {
        guard let process = ProcessIdentity.current else {
            throw .notUsable(path: "/proc/self/stat", .noSuchFileOrDirectory)
        }
        var record = DeviceRecord(
            deviceID: info.id, server: process, imagePath: configuration.imagePath,
            image: file.identity, deviceNonce: info.serverFlags,
            isReadOnly: configuration.isReadOnly, startedAt: Int64(time(nil)),
            backingArguments: configuration.backingArguments, cacheBytes: configuration.cacheBytes)
        record.name = configuration.name
        record.scansPartitions = configuration.scansPartitions
        record.isUntrusted = configuration.isUntrusted
        record.isThrowAway = configuration.isThrowAway
        record.goesWhenUnused = registry.record(of: info.id).map { $0.isOf(info) && $0.goesWhenUnused } ?? false
        return record
    }

    /// Before anybody is told of the disk.
    func confine(
        _ device: ServedDevice, _ record: DeviceRecord, _ socket: ControlSocketServer, _ gone: () -> Void
    ) throws(ServerError) {
        do {
            let broker = try Broker(
                ofDevice: device.info.id, at: device.blockDevicePath, watchesMounts: process.hasOwnMounts)
            try device.session.prepareForConfinement()
            device.rights = broker
            socket.leavesFile = true
            try Confinement.enter()
        } catch {
            if configuration.recovers {
                try? leave(device, socket, record, nil)
            } else {
                _ = try? device.stop(force: true)
                try? remove(device, socket, record, nil, gone)
            }
            throw error
        }
    }
}
