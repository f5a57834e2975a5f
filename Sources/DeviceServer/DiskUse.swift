import BlockStorage

/// Why a disk cannot be taken away: who uses it.
struct DiskUse: CustomStringConvertible {
    let path: String
    /// Processes that have it open; nil when it is claimed exclusively, as by a mount.
    let users: [Process]?

    struct Process {
        let id: Int32
        let name: String
    }

    /// It can be somebody who looks at every disk for a moment.
    var mayPass: Bool { users != nil }

    /// The beginning of a sentence.
    var description: String {
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
