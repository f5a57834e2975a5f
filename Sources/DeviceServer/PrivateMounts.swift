import CSupport
import Glibc
import SystemPackage

/// The server's own mount namespace, which holds no mount of its own disk.
///
/// A namespace ends with its last process, and whatever only it has mounted is unmounted then: of the server's own disk,
/// by the very process that would have to serve the last writes. So the server leaves the namespace that it was started
/// in, and takes mounts of its disk out of its own. All others come and go there as they do outside: a server must not
/// keep a file system that others have unmounted.
enum PrivateMounts {
    /// Enters the namespace: the calling thread, and those it makes from now on. Files and the working directory stay.
    ///
    /// Where this namespace would not tell the new one of unmounts (its root is not shared, as in most containers) the
    /// server stays in it.
    /// - Returns: whether it has one of its own now.
    static func enter() throws(Errno) -> Bool {
        guard MountTable.current.tellsOfUnmounts else { return false }
        let result = cs_enter_mount_namespace()
        guard result == 0 else { throw Errno(rawValue: -result) }
        return true
    }
}

/// Watches for mounts of the server's own disk in its namespace, and takes them out. The main thread's.
final class OwnDiskMounts {
    /// Has POLLPRI when mounts have changed; negative: nothing to watch for.
    private(set) var descriptor: Int32
    private let path: String
    private let devices: [String]
    private var nextLookMilliseconds: Int64?

    /// Mounts can change thousands of times a second, and a look is long where there are many.
    private static let pauseMilliseconds: Int64 = 1000

    /// - Parameter path: of the disk, which exists.
    init(ofDisk path: String, isWatching: Bool) {
        self.path = path
        devices = DiskDevices(ofDiskAt: path).numbers
        descriptor = isWatching ? open(MountTable.path, O_RDONLY | O_CLOEXEC) : -1
        // A recovered disk can be mounted already.
        if descriptor >= 0 { detach() }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    /// How long `poll` may wait: for ever, or until the next look is due.
    var timeoutMilliseconds: Int32 {
        guard let nextLookMilliseconds else { return -1 }
        return Int32(clamping: max(nextLookMilliseconds - Uptime.milliseconds, 0))
    }

    /// What to give to `poll`: nothing while a look is due anyway.
    var polledDescriptor: Int32 { nextLookMilliseconds == nil ? descriptor : -1 }

    /// After each `poll`.
    func polled(hasChanged: Bool) {
        if hasChanged && nextLookMilliseconds == nil { nextLookMilliseconds = Uptime.milliseconds + Self.pauseMilliseconds }
        guard let next = nextLookMilliseconds, next <= Uptime.milliseconds else { return }
        nextLookMilliseconds = nil
        detach()
    }

    private func detach() {
        for mountPoint in MountTable.current.mountPoints(ofDisk: path, diskDevices: devices) { cs_detach_mount(mountPoint) }
    }
}
