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
    /// - Parameters: as of `run`.
    func makeDevice(
        _ made: (UInt32) -> Void, _ gone: @escaping () -> Void
    ) throws(ServerError) -> (ServedDevice, DeviceRecord, ControlSocketServer) {
        var (device, record, socket) =
            configuration.recovers ? try recoverDevice(made, gone) : try addDevice(made, gone)
        if !device.rights.isConfined { made(device.info.id) }
        if let isDirect = device.session.blocks?.isDirect, record.isDirect != isDirect {
            // For list alone.
            try? device.rights.note(.access(isDirect: isDirect), own: record)
            record.isDirect = isDirect
        }
        return (device, record, socket)
    }

    private func addDevice(
        _ made: (UInt32) -> Void, _ gone: @escaping () -> Void
    ) throws(ServerError) -> (ServedDevice, DeviceRecord, ControlSocketServer) {
        var known: (record: DeviceRecord, socket: ControlSocketServer)?
        let device = try ServedDevice.add(
            configuration, process: process, log: log,
            willAppear: { info, files, isDirect, undo throws(ServerError) in
                let record = try self.register(info, files, isDirect)
                undo.append { try? self.registry.remove(record) }
                let socket = try self.makeSocket(info)
                undo.append { socket.close() }
                known = (record, socket)
                return try self.broker(of: info, socket, undo, made, gone)
            })
        guard let known else { preconditionFailure("a device appeared without a record") }
        return (device, known.record, known.socket)
    }

    private func recoverDevice(
        _ made: (UInt32) -> Void, _ gone: @escaping () -> Void
    ) throws(ServerError) -> (ServedDevice, DeviceRecord, ControlSocketServer) {
        var known: ControlSocketServer?
        let (device, record) = try ServedDevice.recover(
            configuration, registry: registry, process: process, log: log,
            record: { info, file throws(ServerError) in try self.record(of: info, file) },
            willServe: { info, undo throws(ServerError) in
                let socket = try self.makeSocket(info)
                undo.append { socket.leave() }
                known = socket
                return try self.broker(of: info, socket, undo, made, {})
            })
        guard let known else { preconditionFailure("a device goes on without a socket") }
        return (device, record, known)
    }

    /// Who has the rights of a server that gives its own away; nil: it does not.
    private func broker(
        of info: UblkDeviceInfo, _ socket: ControlSocketServer, _ undo: UndoList, _ made: (UInt32) -> Void,
        _ gone: @escaping () -> Void
    ) throws(ServerError) -> Broker? {
        guard configuration.isUntrusted else { return nil }
        made(info.id)
        undo.append(gone)
        let broker = try Broker(
            ofDevice: info.id, at: UblkPaths.blockDevice(info.id), watchesMounts: process.hasOwnMounts)
        socket.leavesFile = true
        return broker
    }

    private func makeSocket(_ info: UblkDeviceInfo) throws(ServerError) -> ControlSocketServer {
        do { return try ControlSocketServer(deviceID: info.id) } catch { throw .socket(error) }
    }

    private func register(
        _ info: UblkDeviceInfo, _ files: ImageFiles, _ isDirect: Bool?
    ) throws(ServerError) -> DeviceRecord {
        var record = try self.record(of: info, files.chain[0].file)
        record.backingFiles = files.backingFiles
        record.base = files.chain.base
        record.isDirect = isDirect
        do { try registry.record(record) } catch { throw .registry(error) }
        do throws(ServerError) { try refuseTakenNames(of: record) } catch {
            try? registry.remove(record)
            throw error
        }
        return record
    }

    /// After the record is written: of two that want one name at the same time at least one sees the other.
    private func refuseTakenNames(of record: DeviceRecord) throws(ServerError) {
        for other in registry.list() where other.deviceID != record.deviceID {
            let hasName = record.name != nil && other.name == record.name
            let hasLink = record.link != nil && other.link == record.link
            guard hasName || hasLink,
                other.server.isRunning || ((try? UblkControlDevice().device(of: other, timeout: .seconds(2))) ?? nil) != nil
            else { continue }
            if let name = record.name, hasName { throw .nameTaken(name, id: other.deviceID) }
            if let link = record.link {
                throw .symlink(DeviceLinkError(path: link.path, fault: .isAnothers(id: other.deviceID)))
            }
        }
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
        record.link = configuration.link
        record.scansPartitions = configuration.scansPartitions
        record.isUntrusted = configuration.isUntrusted
        record.keepsReads = configuration.keepsReads
        record.keepLimitBytes = configuration.keepLimitBytes
        record.isThrowAway = configuration.isThrowAway
        record.goesWhenUnused = registry.record(of: info.id).map { $0.isOf(info) && $0.goesWhenUnused } ?? false
        return record
    }
}
