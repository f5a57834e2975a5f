import CSupport
import Glibc
import Platform
import SystemPackage
import Ublk

/// The process behind `add`, unless it is not wanted: starts the server, and has the device recovered whenever it waits for
/// another one, until it is gone. Not for users: it stands in for `ServeProcess` and has the same descriptors.
///
/// What it supervises is the device, not a child: whoever else gives it a server, as in an upgrade, is welcome.
public enum SupervisingProcess {
    /// How it ends.
    public enum Ending: Sendable {
        /// The device is gone, or another supervisor has it.
        case done
        /// The device waits for its next server, and this process was told to end.
        case left
        /// The server could not make the device, and has said why.
        case serverFailed
    }

    /// A server that dies sooner than this after its start has probably died of what it was asked.
    private static let shortLifeSeconds = 10
    /// So many short lives, and it is left to somebody who reads the log.
    private static let mostShortLives = 5
    /// A server that was ended well makes room for another one, which somebody may be about to start.
    private static let roomSeconds = 3

    /// - Parameter arguments: those of the server.
    public static func run(_ arguments: [String]) throws(ServerStartError) -> Ending {
        cs_name_thread("qed-ublk")
        Detachment.leaveCaller()
        Detachment.leaveControlGroup()
        let signals = cs_open_signals()
        let blocked = signals < 0 ? signals : cs_block_signals()
        guard blocked >= 0 else { throw ServerStartError.cannotStart(Errno(rawValue: -blocked)) }
        var child: Int32 = 0
        let result = withArgumentVector(["qed-ublk", "serve"] + arguments) {
            cs_spawn_self($0, STDERR_FILENO, 3, &child)
        }
        guard result == 0 else { throw ServerStartError.cannotStart(Errno(rawValue: -result)) }
        close(3)
        let server = ProcessIdentity(running: child)
        let found = Supervision.record(writtenBy: server, id: child, passingOn: signals)
        guard let found else {
            // It had no device: it has said why, or nobody was to be told.
            var status: Int32 = 0
            waitpid(child, &status, 0)
            return status == 0 ? .done : .serverFailed
        }
        // The one that this server was started beside, after a crash or for an upgrade, has this server too.
        guard let lock = try? DeviceLock(ofSupervisorOf: found.deviceID) else { return .done }
        defer { lock.release() }
        // Its server has a namespace of its own. With its caller's, this process would keep alive what is mounted there, the
        // disk too, when all others of a container have ended.
        let mounts = ownMounts(besides: found)
        defer { mounts?.end() }
        return try supervise(found, signals)
    }

    private static func ownMounts(besides device: DeviceRecord) -> OwnDiskMounts? {
        do throws(Errno) {
            guard try PrivateMounts.enter(passesOn: true) else { return nil }
            return try OwnDiskMounts(ofDisk: UblkPaths.blockDevice(device.deviceID))
        } catch {
            ServerLog.append("mounts of the disk stay in its supervisor's namespace: \(error)", deviceID: device.deviceID)
            return nil
        }
    }

    private static func supervise(_ device: DeviceRecord, _ signals: Int32) throws(ServerStartError) -> Ending {
        var record = device
        var failures = 0
        while true {
            let server = record.server
            if Supervision.waitForEnd(of: server, passingOn: signals) { break }
            // The first one is a child.
            waitpid(server.id, nil, 0)
            guard let ended = Supervision.record(ofDeviceIn: record) else { return .done }
            // One that was told to leave has not died, nor has one that somebody has given a successor already.
            if ended.server == server, ended.leftImage == nil {
                failures = Int64(time(nil)) - record.startedAt < Int64(shortLifeSeconds) ? failures + 1 : 0
            }
            while true {
                guard let current = Supervision.record(ofDeviceIn: record) else { return .done }
                record = current
                if record.leftImage != nil { Supervision.waitForOther(than: server, of: record, seconds: roomSeconds) }
                guard let current = Supervision.record(ofDeviceIn: record) else { return .done }
                record = current
                if record.server.isRunning { break }
                guard failures < mostShortLives else {
                    let error = ServerStartError.keepsDying(UblkPaths.blockDevice(record.deviceID))
                    ServerLog.append("\(error)", deviceID: record.deviceID)
                    throw error
                }
                guard let failure = Supervision.recover(record.deviceID) else { continue }
                ServerLog.append(failure, deviceID: record.deviceID)
                failures += 1
                // It may be the machine's fault, for a moment.
                sleep(1)
            }
        }
        return Supervision.record(ofDeviceIn: record) == nil ? .done : .left
    }
}

private enum Supervision {
    /// The record that a server writes of its device; nil where it ends without.
    static func record(writtenBy server: ProcessIdentity?, id: Int32, passingOn signals: Int32) -> DeviceRecord? {
        let registry = DeviceRegistry()
        while let server, server.isRunning {
            if let record = registry.list().first(where: { $0.server == server }) { return record }
            var polled = pollfd(fd: signals, events: Int16(POLLIN), revents: 0)
            poll(&polled, 1, 50)
            passOn(signals, to: server)
        }
        return registry.list().first { $0.server.id == id && !$0.server.isRunning }
    }

    /// - Returns: whether there was a signal.
    @discardableResult private static func passOn(_ signals: Int32, to server: ProcessIdentity) -> Bool {
        var isAny = false
        while case let signal = cs_take_signal(signals), signal != 0 {
            isAny = true
            if server.isRunning { kill(server.id, signal) }
        }
        return isAny
    }

    /// Waits for the end of a process, whosever child it is, and passes on to it what it is to do.
    /// - Returns: whether it was told to end.
    static func waitForEnd(of server: ProcessIdentity, passingOn signals: Int32) -> Bool {
        let process = cs_open_process(server.id)
        defer { if process >= 0 { close(process) } }
        var isToldToEnd = false
        while true {
            var polled = [
                pollfd(fd: signals, events: Int16(POLLIN), revents: 0), pollfd(fd: process, events: Int16(POLLIN), revents: 0),
            ]
            // Where the process cannot be waited for (Linux before 5.3) it is looked at.
            poll(&polled, nfds_t(polled.count), process >= 0 ? -1 : 500)
            if passOn(signals, to: server) { isToldToEnd = true }
            if !server.isRunning { return isToldToEnd }
            // One that ends counts as running for a moment yet.
            if polled[1].revents != 0 { usleep(10_000) }
        }
    }

    /// Gives others the time to start another server.
    static func waitForOther(than server: ProcessIdentity, of record: DeviceRecord, seconds: Int) {
        for _ in 0..<(seconds * 10) {
            guard let current = self.record(ofDeviceIn: record), current.server == server else { return }
            usleep(100_000)
        }
    }

    /// What is known of the device by now; nil when it is gone, and its number, if at all, another device's.
    static func record(ofDeviceIn record: DeviceRecord) -> DeviceRecord? {
        guard let current = DeviceRegistry().record(of: record.deviceID), current.deviceNonce == record.deviceNonce else {
            return nil
        }
        return current
    }

    /// Has `recover` do it, of the program as it is installed now: after an upgrade that is another one than this.
    /// - Returns: why it did not.
    static func recover(_ deviceID: UInt32) -> String? {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            return "\(Errno(rawValue: errno))"
        }
        defer { close(ends[0]) }
        var process: Int32 = 0
        let result = withArgumentVector([Program.path, "recover", "--no-supervise", "\(deviceID)"]) {
            cs_spawn_program($0, -1, ends[1], &process)
        }
        close(ends[1])
        guard result == 0 else { return "\(Errno(rawValue: -result))" }
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while case let count = read(ends[0], &piece, piece.count), count > 0, text.count < 65_536 { text += piece.prefix(count) }
        var status: Int32 = 0
        waitpid(process, &status, 0)
        return status == 0 ? nil : String(decoding: text, as: UTF8.self).trimmed
    }
}

extension String {
    /// Without the end of its last line, and what every message begins with.
    fileprivate var trimmed: String {
        var text = self[...]
        if text.hasPrefix("qed-ublk: ") { text = text.dropFirst("qed-ublk: ".count) }
        while text.last?.isNewline == true { text.removeLast() }
        return String(text)
    }
}
