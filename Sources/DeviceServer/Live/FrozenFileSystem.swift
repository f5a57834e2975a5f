import BlockStorage
import CSupport
import Glibc
import Platform
import SystemPackage
import Ublk

/// A file system on a device's disk that is clean and takes no writes for a moment, as by fsfreeze: what a snapshot keeps of it
/// needs no mending. It goes on when this is thawed, or goes.
final class FrozenFileSystem {
    private var descriptor: Int32
    private var signalsBefore = sigset_t()

    /// Waits until the file system has written what it has.
    ///
    /// Until it is thawed the calling thread takes none of the signals that a terminal sends, or that ask to end: they would
    /// leave the file system frozen.
    /// - Throws: `FreezeError`; nothing is frozen then.
    init(at mountPoint: String, onDisk id: UInt32) throws {
        let path = try AbsolutePath.ofDirectory(mountPoint)
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FreezeError.cannot(mountPoint, Errno(rawValue: errno)) }
        let disk = UblkPaths.blockDevice(id)
        guard FrozenFileSystem.isMountPoint(descriptor, path, ofDiskAt: disk) else {
            close(descriptor)
            descriptor = -1
            throw FreezeError.notOfDisk(mountPoint, disk: disk, DiskClaim.now(ofDiskAt: disk).mountPoints)
        }
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU] { sigaddset(&signals, signal) }
        pthread_sigmask(SIG_BLOCK, &signals, &signalsBefore)
        let result = cs_freeze_file_system(descriptor)
        guard result == 0 else {
            end()
            throw FreezeError.cannot(mountPoint, Errno(rawValue: -result))
        }
    }

    /// Whether the open directory is where a file system on the disk is mounted, as this process sees it: what else has that
    /// path, here or in another namespace, does not count.
    private static func isMountPoint(_ descriptor: Int32, _ path: String, ofDiskAt disk: String) -> Bool {
        guard let id = MountTable.mountID(ofOpenFile: descriptor), let mount = MountTable.current.mount(id: id),
            mount.mountPoint == path
        else { return false }
        let numbers = DiskStack(ofDiskAt: disk).numbers
        // Some file systems have a number of their own, and name the disk.
        let ofSource = mount.source.hasPrefix("/dev/") ? KernelTree.machine.deviceNumber(mount.source) : nil
        return numbers.contains(mount.device) || ofSource.map(numbers.contains) ?? false
    }

    deinit { thaw() }

    func thaw() {
        guard descriptor >= 0 else { return }
        // Somebody else may have: then it is.
        _ = cs_thaw_file_system(descriptor)
        end()
    }

    /// What signals have come meanwhile takes effect now.
    private func end() {
        close(descriptor)
        descriptor = -1
        pthread_sigmask(SIG_SETMASK, &signalsBefore, nil)
    }
}

/// A file system that could not be frozen. No snapshot was taken.
package enum FreezeError: Error, CustomStringConvertible {
    case notOfDisk(String, disk: String, [String])
    case cannot(String, Errno)

    package var description: String {
        switch self {
        case .notOfDisk(let path, let disk, []): "\(path): no file system on \(disk) is mounted there, or anywhere else"
        case .notOfDisk(let path, let disk, let mountPoints):
            "\(path): no file system on \(disk) is mounted there; one is at \(mountPoints.joined(separator: ", "))"
        case .cannot(let path, .resourceBusy): "\(path): is frozen already; thaw it first (fsfreeze -u), or leave --fsfreeze out"
        case .cannot(let path, .notSupported): "\(path): its file system cannot be frozen"
        case .cannot(let path, let errno): "\(path): cannot be frozen: \(errno)"
        }
    }
}
