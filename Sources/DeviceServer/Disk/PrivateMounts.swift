import CSupport
import Glibc
import Platform
import SystemPackage

/// The own mount namespace of a server, or of whoever supervises one, which holds no mount of its own disk.
///
/// A namespace ends with its last process, and whatever only it has mounted is unmounted then: of the server's own disk,
/// by the very process that would have to serve the last writes. So the server leaves the namespace that it was started
/// in, and takes mounts of its disk out of its own. All others come and go there as they do outside: a server must not
/// keep a file system that others have unmounted.
///
/// In a unit systemd has made a namespace for it. It has copies of mounts that do not go as they do outside: those are taken out
/// as well. And the server stays in it: a thread that the kernel has given it by then (io_uring's) would not come along, and keep
/// what is mounted there.
enum PrivateMounts {
    /// Enters the namespace: the calling thread, and those it makes from now on. Files and the working directory stay.
    ///
    /// Where this namespace would not tell the new one of unmounts (its root is not shared, as in most containers) the
    /// process stays in it.
    /// - Parameter passesOn: the new one tells namespaces that are made of it in turn: those of a supervisor's next servers.
    /// - Returns: whether it has one of its own now.
    static func enter(passesOn: Bool = false) throws(Errno) -> Bool {
        let mounts = MountTable.current
        guard mounts.tellsOfUnmounts else { return false }
        if !passesOn, mounts.followsOthers, MountNamespaces.hasOnlyThisProcess { return true }
        let result = cs_enter_mount_namespace(passesOn)
        guard result == 0 else { throw Errno(rawValue: -result) }
        return true
    }
}

/// Watches for mounts of a server's own disk in this process's namespace, and for those that would stay when others have
/// unmounted them, and takes them out, on a thread of its own: the name of a mount can lie in a file system that does not
/// answer, and the server answers requests meanwhile.
struct OwnDiskMounts {
    private let ending: Int32

    /// Mounts can change thousands of times a second, and a look is long where there are many.
    private static let pauseMilliseconds: Int32 = 1000

    /// - Parameter path: of the disk, which exists. A recovered disk can be mounted already.
    /// - Throws: why they cannot be watched.
    init(ofDisk path: String) throws(Errno) {
        let table = open(MountTable.path, O_RDONLY | O_CLOEXEC)
        guard table >= 0 else { throw Errno(rawValue: errno) }
        let ending = cs_eventfd()
        guard ending >= 0 else {
            close(table)
            throw Errno(rawValue: -ending)
        }
        self.ending = ending
        do throws(Errno) {
            try BackgroundThread { OwnDiskMounts.watch(table, ofDisk: path, until: ending) }.detach()
        } catch {
            close(table)
            close(ending)
            throw error
        }
    }

    /// It is not waited for. Once.
    func end() { cs_eventfd_signal(ending) }

    private static func watch(_ table: Int32, ofDisk path: String, until ending: Int32) {
        var hasEnded = false
        while !hasEnded {
            // What is mounted from a device on top of the disk keeps it in use as well.
            let stack = DiskStack(ofDiskAt: path)
            let mounts = MountTable.current
            let own = mounts.mountPoints(ofDevices: stack.numbers, named: stack.names, KernelTree.machine.deviceNumber)
            let unheard = mounts.unheardMountPoints(.read("/proc/1/mountinfo"), besides: MountTable.ofOpenFiles)
            for mountPoint in own + unheard { cs_detach_mount(mountPoint) }
            // A change from now on ends the next wait.
            hasEnded = isEnding(ending, table, forMilliseconds: -1) || isEnding(ending, nil, forMilliseconds: pauseMilliseconds)
        }
        close(table)
        close(ending)
    }

    /// Waits for the end, for a change of the table, or for so long.
    private static func isEnding(_ ending: Int32, _ table: Int32?, forMilliseconds timeout: Int32) -> Bool {
        var polled = [
            pollfd(fd: ending, events: Int16(POLLIN), revents: 0), pollfd(fd: table ?? -1, events: Int16(POLLPRI), revents: 0),
        ]
        return poll(&polled, nfds_t(polled.count), timeout) > 0 && polled[0].revents != 0
    }
}
