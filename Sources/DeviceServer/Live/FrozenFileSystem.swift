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

    /// Waits until the file system has written what it has.
    ///
    /// From here on the calling thread takes no SIGTERM, SIGINT or SIGHUP: they would leave the file system frozen.
    /// - Throws: `FreezeError`; nothing is frozen then.
    init(at mountPoint: String, onDisk id: UInt32) throws {
        let path = try AbsolutePath.ofDirectory(mountPoint)
        let mountPoints = DiskClaim.now(ofDiskAt: UblkPaths.blockDevice(id)).mountPoints
        guard mountPoints.contains(path) else {
            throw FreezeError.notOfDisk(mountPoint, disk: UblkPaths.blockDevice(id), mountPoints)
        }
        descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else { throw FreezeError.cannot(mountPoint, Errno(rawValue: errno)) }
        let blocked = cs_block_signals()
        let result = blocked == 0 ? cs_freeze_file_system(descriptor) : blocked
        guard result == 0 else {
            close(descriptor)
            descriptor = -1
            throw FreezeError.cannot(mountPoint, Errno(rawValue: -result))
        }
    }

    deinit { thaw() }

    func thaw() {
        guard descriptor >= 0 else { return }
        // Somebody else may have: then it is.
        _ = cs_thaw_file_system(descriptor)
        close(descriptor)
        descriptor = -1
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
