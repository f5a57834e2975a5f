import BlockStorage
import Glibc

/// Why a disk cannot be taken away: who uses it.
public struct DiskUse: CustomStringConvertible {
    let path: String
    /// Processes that have it open; nil when it is claimed exclusively, as by a mount.
    let users: [Process]?

    public struct Process {
        let id: Int32
        let name: String
    }

    /// It can be somebody who looks at every disk for a moment.
    var mayPass: Bool { users != nil }

    /// Who uses a disk now that no server answers for; nil where nobody does. Never waits for the disk.
    public static func now(ofDeviceAt path: String) -> DiskUse? {
        let users = processes(usingDeviceAt: path)
        if !users.isEmpty { return DiskUse(path: path, users: users) }
        let disk = open(path, O_RDONLY | O_CLOEXEC | O_EXCL)
        if disk < 0 { return errno == EBUSY ? DiskUse(path: path, users: nil) : nil }
        close(disk)
        return nil
    }

    /// The beginning of a sentence.
    public var description: String {
        guard let users else { return "\(path) is in use; unmount it first" }
        let names = users.prefix(3).map { "\($0.name) (process \($0.id))" }.joined(separator: ", ")
        return "\(path) is in use\(names.isEmpty ? "" : " by \(names)"); close it first"
    }

    /// The processes, but for this one, that have the device open under that path, as far as this process may see.
    ///
    /// Only the names of open files are looked at, never the files: one on a network may not answer.
    static func processes(usingDeviceAt path: String) -> [Process] {
        ProcessFiles.otherProcesses().compactMap { id in
            let directory = "/proc/\(id)/fd"
            let isUser = ProcessFiles.names(in: directory).contains {
                ProcessFiles.target(ofLink: "\(directory)/\($0)") == path
            }
            return isUser ? Process(id: id, name: ProcessFiles.name(ofProcess: id)) : nil
        }
    }
}
