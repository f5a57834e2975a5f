import BlockStorage
import Glibc

/// Why a disk cannot be taken away: who uses it.
public struct DiskUse: CustomStringConvertible {
    let path: String
    let user: User

    enum User {
        /// They have it open.
        case processes([Process])
        /// It is had exclusively, as by a mount.
        case claim(DiskClaim)
    }

    public struct Process {
        let id: Int32
        let name: String
    }

    /// It can be somebody who looks at every disk for a moment.
    var mayPass: Bool {
        if case .processes = user { true } else { false }
    }

    /// Who uses a disk now that no server answers for; nil where nobody does. Never waits for the disk.
    public static func now(ofDeviceAt path: String) -> DiskUse? {
        let users = processes(usingDeviceAt: path)
        if !users.isEmpty { return DiskUse(path: path, user: .processes(users)) }
        let disk = open(path, O_RDONLY | O_CLOEXEC | O_EXCL)
        if disk < 0 { return errno == EBUSY ? claimed(path) : nil }
        close(disk)
        return nil
    }

    /// Somebody has it exclusively; who, is looked for.
    static func claimed(_ path: String) -> DiskUse { DiskUse(path: path, user: .claim(.now(ofDiskAt: path))) }

    /// The beginning of a sentence.
    public var description: String {
        switch user {
        case .claim(let claim):
            return "\(path) is in use\(claim)"
        case .processes(let users):
            let names = users.prefix(3).map { "\($0.name) (process \($0.id))" }.joined(separator: ", ")
            return "\(path) is in use\(names.isEmpty ? "" : " by \(names)"); close it first"
        }
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
