import CSupport
import Glibc
import Logging
import Platform
import QEDChain
import Ublk

/// The broker of a confined server: answers it until it ends, and ends then. Not for users: its standard error is the server's,
/// and descriptor 3 is connected with it.
///
/// It trusts nothing that the server says: whatever that asks for is done to the device alone that this process was started
/// for, and to what the device's record, as it was then, says is the device's.
public struct BrokerProcess {
    private let record: DeviceRecord
    private let arrival: DiskArrival
    private let withdrawal: DiskWithdrawal
    private let registry = DeviceRegistry()
    private let socketFile: FileIdentity?
    /// Mounts of its disk are to be taken out of the namespace that the server has shared with this process.
    private let watchesMounts: Bool

    /// - Parameter words: the device's number; and "own-mounts" for `watchesMounts`.
    public static func main(_ words: [String], log: Logger) {
        cs_name_thread(OwnDiskProcess.name)
        Detachment.leaveControlGroup()
        // It ends with the server, in the last stage of the machine's shutdown as well.
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] { Glibc.signal(signal, SIG_IGN) }
        cs_mark_as_storage_daemon()
        BrokerProcess(words, log: log)?.answer(3, log)
    }

    private init?(_ words: [String], log: Logger) {
        guard let id = words.first.flatMap({ UInt32($0) }), let record = registry.record(of: id),
            let control = try? UblkControlDevice(), let info = try? control.deviceInfo(id), record.isOf(info)
        else { return nil }
        self.record = record
        arrival = DiskArrival(
            of: info, control, serverProcess: record.server.id, isReadOnly: record.isReadOnly,
            scansPartitions: record.scansPartitions, name: record.name, link: record.link)
        withdrawal = DiskWithdrawal(of: info, control, log: log)
        watchesMounts = words.dropFirst().first == "own-mounts"
        socketFile = FileIdentity(ofFileAt: ControlSocketAddress(directory: registry.directory, deviceID: id).path)
    }

    private func answer(_ connection: Int32, _ log: Logger) {
        var mounts: OwnDiskMounts?
        defer { mounts?.end() }
        guard Broker.send(BrokerReply.done.json, to: connection) else { return }
        while let line = readLine(from: connection, limitBytes: Broker.lineLimitBytes) {
            guard let request = JSONValue(parsing: line).flatMap({ BrokerRequest($0) }) else { return }
            let reply = answer(to: request)
            // The disk is there from now on.
            if [.start, .endRecovery].contains(request), watchesMounts, mounts == nil {
                do { mounts = try OwnDiskMounts(ofDisk: withdrawal.path) } catch {
                    log.warning("mounts of \(withdrawal.path) stay in the server's namespace: \(error)")
                }
            }
            guard Broker.send(reply.json, to: connection) else { return }
        }
    }

    private func answer(to request: BrokerRequest) -> BrokerReply {
        do throws(ServerError) {
            switch request {
            case .describe(let shape):
                try arrival.describe(shape)
                return .done
            case .start: return .sentences(try arrival.start())
            case .endRecovery:
                try arrival.endRecovery()
                // Where there is no space to write that, the mark harms nobody: the driver knows this server by now (Takeover).
                if record.isBeingTakenOver { try? registry.change(record) { $0.isBeingTakenOver = false } }
                return .done
            case .askSize: return .size(try arrival.sizeBytes())
            case .grow(let sizeBytes):
                try arrival.grow(to: sizeBytes)
                return .done
            case .stop(let force, let timeoutSeconds):
                return try withdrawal.stop(force: force, timeoutSeconds: timeoutSeconds).map { .inUse("\($0)") } ?? .done
            case .isMachineGoingDown: return .isGoingDown(MachineShutdown.isUnderWay)
            case .flushDisk: return .sentences(OwnDiskProcess.write(.flush, ofDiskAt: withdrawal.path))
            case .note(let note):
                do throws(RegistryError) { try registry.change(record) { note.apply(to: &$0) } } catch { throw .registry(error) }
                if case .left(_?) = note { removeSessionLog() }
                return .done
            case .forgetDevice(let isClosed): return .forgotten(try forgetDevice(isClosed: isClosed))
            }
        } catch {
            return .failed("\(error)")
        }
    }

    /// Nothing of it is left to replay.
    private func removeSessionLog() {
        unlink(SessionLogPath.path(inDirectory: registry.directory, image: record.image))
    }

    private func forgetDevice(isClosed: Bool) throws(ServerError) -> DiskWithdrawal.Remains {
        // Once the device is deleted its number, and with it the names of these, can be another server's.
        let socket = ControlSocketAddress(directory: registry.directory, deviceID: record.deviceID).path
        if let socketFile, FileIdentity(ofFileAt: socket) == socketFile { unlink(socket) }
        if isClosed { removeSessionLog() }
        defer { try? registry.remove(record) }
        let remains = try withdrawal.forgetDevice()
        ServerLog.remove(deviceID: record.deviceID)
        return remains
    }
}
