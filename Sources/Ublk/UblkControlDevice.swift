import CSupport
import Glibc
import Platform
import SystemPackage

/// /dev/ublk-control: adds, starts, stops, deletes and describes devices.
///
/// Every command blocks the calling thread until the driver answers or its deadline passes. One thread at a time uses
/// it. A command that passes its deadline is cancelled; where the driver does not let go of it, it may still take
/// effect later.
///
/// The order of a device's life (the driver's rules are noted with each command): `addDevice`, open its character
/// device, `setParameters`, map and fetch every queue, `startDevice`; at the end `stopDevice`, unmap and close,
/// `deleteDevice`.
public final class UblkControlDevice: @unchecked Sendable {
    // SAFETY: the channel is used by one thread at a time, as demanded above.
    private let channel: any ControlChannel

    /// What a command that never waits for anybody may take.
    public static let promptTimeout = Duration.seconds(30)

    /// Opens the control device.
    /// - Throws: `noDriver`, `notPermitted`, `cannotOpen` or `ringUnavailable`.
    public convenience init() throws(UblkControlError) { try self.init(path: UblkPaths.control) }

    init(channel: any ControlChannel) { self.channel = channel }

    init(path: String) throws(UblkControlError) {
        let descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else {
            switch errno {
            // ENXIO, ENODEV: a node that udev or an administrator made without the module behind it.
            case ENOENT, ENXIO, ENODEV: throw .noDriver
            case EACCES, EPERM: throw .notPermitted(path: path)
            case let code: throw .cannotOpen(path: path, Errno(rawValue: code))
            }
        }
        do {
            channel = try RingControlChannel(descriptor: descriptor)
        } catch {
            throw .ringUnavailable(error)
        }
    }

    /// Sends one command until it is answered.
    /// - Parameter accepting: errnos that the caller handles itself; they are returned, negated.
    func perform(
        _ command: ControlCommand, timeout: Duration, accepting accepted: [Errno] = []
    ) throws(UblkControlError) -> Int32 {
        let deadline = Deadline(after: timeout)
        let deviceID = command.deviceID == CS_UBLK_ANY_DEVICE ? nil : command.deviceID
        while true {
            switch deadline.hasPassed ? .cancelled : channel.execute(command, timeout: deadline.remaining) {
            case .completed(let result) where result >= 0: return result
            case .completed(-EINTR) where command.code.isRepeatedWhenInterrupted: continue
            case .completed(let result):
                let errno = Errno(rawValue: -result)
                if accepted.contains(errno) { return result }
                throw .refused(command.code, deviceID: deviceID, errno)
            case .abandoned, .cancelled:
                let hint = timeoutHint(for: command.code, deviceID: deviceID)
                throw .timedOut(command.code, deviceID: deviceID, after: timeout, hint: hint)
            }
        }
    }
}

// Queries, which wait for nobody unless a stop holds the device.
extension UblkControlDevice {
    /// What the driver supports; nil on kernels that cannot be asked (before 6.5).
    public func features() throws(UblkControlError) -> UblkFeatures? {
        let buffer = ControlBuffer(byteCount: 8)
        let command = ControlCommand(code: .getFeatures, deviceID: CS_UBLK_ANY_DEVICE, buffer: buffer)
        // A driver that does not know the command looks for the device first, and there is none.
        let result = try perform(
            command, timeout: Self.promptTimeout, accepting: [.unknownCommand, .noSuchDevice, .invalidArgument])
        return result < 0 ? nil : UblkFeatures(rawValue: buffer.load(as: UInt64.self))
    }

    /// - Throws: `refused` with ENODEV where there is no such device.
    public func deviceInfo(_ id: UInt32) throws(UblkControlError) -> UblkDeviceInfo {
        guard let info = try existingDeviceInfo(id, timeout: Self.promptTimeout) else {
            throw .refused(.getDeviceInfo, deviceID: id, .noSuchDevice)
        }
        return info
    }

    /// As `deviceInfo`, but nil where there is no such device.
    public func existingDeviceInfo(_ id: UInt32, timeout: Duration) throws(UblkControlError) -> UblkDeviceInfo? {
        let buffer = ControlBuffer(cs_ublk_device_info())
        let result = try perform(
            ControlCommand(code: .getDeviceInfo, deviceID: id, buffer: buffer), timeout: timeout,
            accepting: [.noSuchDevice])
        return result < 0 ? nil : UblkDeviceInfo(buffer.load(as: cs_ublk_device_info.self))
    }

    /// The parameters in force; nil before `setParameters`. They outlive the server.
    public func parameters(
        _ id: UInt32, timeout: Duration = promptTimeout
    ) throws(UblkControlError) -> UblkParameters? {
        var empty = cs_ublk_params()
        empty.len = UInt32(MemoryLayout<cs_ublk_params>.size)
        let buffer = ControlBuffer(empty)
        _ = try perform(
            ControlCommand(code: .getParameters, deviceID: id, buffer: buffer), timeout: timeout)
        return UblkParameters(buffer.load(as: cs_ublk_params.self))
    }

    /// The processors whose requests go to this queue, in ascending order.
    public func queueAffinity(_ id: UInt32, queue: Int) throws(UblkControlError) -> [Int] {
        try checkRange(.getQueueAffinity, "the queue", queue, 0...Int(CS_UBLK_MAX_QUEUES) - 1)
        // 8192 processors, the most that a kernel can be built for.
        let buffer = ControlBuffer(byteCount: 1024)
        _ = try perform(
            ControlCommand(code: .getQueueAffinity, deviceID: id, argument: UInt64(queue), buffer: buffer),
            timeout: Self.promptTimeout)
        return (0..<buffer.bytes.count * 8).filter { buffer.bytes[$0 / 8] >> UInt8($0 % 8) & 1 == 1 }
    }
}

extension UblkControlDevice {
    func checkRange(
        _ command: UblkCommand, _ what: String, _ value: Int, _ allowed: ClosedRange<Int>
    ) throws(UblkControlError) {
        guard allowed.contains(value) else {
            throw .outOfRange(command, what: what, value: value, allowed: allowed)
        }
    }
}
