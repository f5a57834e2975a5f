import CSupport
import Glibc
import SystemPackage

/// The right to change by what a device is served, or to delete it: one process's at a time.
///
/// It is a lock (flock) of the device's directory in /sys, so it ends with the process and goes with the device; where there is
/// no such directory there is no device, and nothing to change.
///
/// Without it a `del` that has found a device without a server takes it from the server that it gets meanwhile.
final class DeviceLock {
    private var descriptor: Int32

    /// Waits for whoever has it: at most as long as a takeover or the completion of an image should take.
    /// - Throws: `isHad` when the time is over.
    convenience init(ofDevice id: UInt32, timeoutSeconds: Int = 120) throws(DeviceLockError) {
        try self.init(path: "/sys/class/ublk-char/ublkc\(id)", id: id, timeoutSeconds: timeoutSeconds)
    }

    /// The right to give a device its next server whenever it has lost one: one supervisor is enough. It is a lock of a file
    /// in that directory.
    /// - Throws: where another process has it, and is not about to end.
    convenience init(ofSupervisorOf id: UInt32) throws(DeviceLockError) {
        try self.init(path: DeviceLock.supervisorsFile(id), id: id, timeoutSeconds: 1)
    }

    fileprivate static func supervisorsFile(_ id: UInt32) -> String { "/sys/class/ublk-char/ublkc\(id)/dev" }

    init(path: String, id: UInt32, timeoutSeconds: Int) throws(DeviceLockError) {
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        let end = Uptime.milliseconds + Int64(timeoutSeconds) * 1000
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            // A file system that has no locks: as good as it gets.
            guard errno == EWOULDBLOCK || errno == EINTR else { return }
            guard Uptime.milliseconds < end else {
                release()
                throw DeviceLockError(id: id)
            }
            cs_sleep_milliseconds(20)
        }
    }

    deinit { release() }

    func release() {
        if descriptor >= 0 { close(descriptor) }
        descriptor = -1
    }
}

/// The supervisor of a device that is about to go, with which it ends: known by its lock, which can be looked at when the file
/// has gone with the device.
final class DepartingSupervisor {
    private let path: String
    private let descriptor: Int32

    init(ofDevice id: UInt32) {
        path = DeviceLock.supervisorsFile(id)
        descriptor = open(path, O_RDONLY | O_CLOEXEC)
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// Returns when it has ended as well, or does not within some seconds; at once where the device is still there.
    func waitForEnd() {
        guard descriptor >= 0, access(path, F_OK) != 0 else { return }
        for _ in 0..<500 where flock(descriptor, LOCK_SH | LOCK_NB) != 0 { cs_sleep_milliseconds(10) }
    }
}

/// Another process is at work on the device.
public struct DeviceLockError: Error, Equatable, CustomStringConvertible {
    public let id: UInt32

    public var description: String {
        "/dev/ublkb\(id): another command, or its next server, is at work on it; try again"
    }
}
