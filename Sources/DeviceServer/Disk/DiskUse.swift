import BlockStorage
import Glibc
import Platform
import Ublk

/// Why a disk cannot be taken away: who uses it.
struct DiskUse: Error, CustomStringConvertible {
    let path: String
    let user: User

    enum User: Sendable {
        /// They have it open, or a partition of it.
        case processes([Process])
        /// The kernel has it for something, as for a mount.
        case claim(DiskClaim)
        /// It cannot be had exclusively, and why.
        case unknown(String)
        /// A broker has found it, and says who it is.
        case told(String)
    }

    struct Process: Equatable, Sendable {
        let id: Int32
        let name: String
        /// A server's, for its own disk.
        var isOwnDisk = false
    }

    /// What may pass by itself, or never.
    static func beingRead(_ path: String) -> DiskUse {
        DiskUse(path: path, user: .unknown("its partition table is being read, which may wait for a server; try again"))
    }

    /// It can be somebody who looks at every disk for a moment.
    var mayPass: Bool {
        switch user {
        case .processes, .unknown: true
        case .claim, .told: false
        }
    }

    /// Who uses a disk that is known to be used: by the kernel's word, which does not say by whom.
    static func known(ofDiskAt path: String) -> DiskUse { found(ofDiskAt: path) ?? DiskUse(path: path, user: .processes([])) }

    /// Who uses a disk, as far as can be found without the kernel's word; nil: nobody.
    /// - Parameter own: a process that has it open for who asks.
    static func found(ofDiskAt path: String, besides own: Int32? = nil, _ tree: KernelTree = .machine) -> DiskUse? {
        let claim = DiskClaim.now(ofDiskAt: path, tree)
        if !claim.isEmpty { return DiskUse(path: path, user: .claim(claim)) }
        if UsersService.isNeeded { return told(ofDiskAt: path, besides: own) }
        let users = processes(
            using: DiskDevices(ofDiskAt: path).numbers, among: ProcessFiles.otherProcesses().filter { $0 != own })
        return of(users, path)
    }

    private static func of(_ users: [Process], _ path: String) -> DiskUse? {
        if users.isEmpty { return nil }
        let others = users.filter { !$0.isOwnDisk }
        return others.isEmpty ? .beingRead(path) : DiskUse(path: path, user: .processes(others))
    }

    /// Who has it open, where this process may not see that. Without an answer it is in use; but not while the machine goes down,
    /// where it would be so for ever.
    private static func told(ofDiskAt path: String, besides own: Int32?) -> DiskUse? {
        guard let id = UblkPaths.deviceID(ofBlockDevice: path) else { return .unseen(path) }
        guard let users = UsersService.users(ofDevice: id, besides: own) else {
            return MachineShutdown.isUnderWay ? nil : .unseen(path)
        }
        if users.processes.isEmpty, users.hasMore { return DiskUse(path: path, user: .processes([])) }
        return of(users.processes, path)
    }

    /// Nobody says who has it open.
    static func unseen(_ path: String) -> DiskUse {
        DiskUse(
            path: path,
            user: .unknown("it cannot be seen who has it open, because qed-ublk-users.socket does not answer; start it"))
    }

    /// Somebody has it exclusively, and who cannot be found: a mount in another namespace, most likely.
    static func claimed(_ path: String) -> DiskUse { found(ofDiskAt: path) ?? DiskUse(path: path, user: .claim(DiskClaim())) }

    /// The beginning of a sentence, with what to do.
    var description: String {
        switch user {
        case .claim(let claim): "\(path) is in use\(claim)"
        case .processes: "\(subject); close it first"
        case .unknown, .told: subject
        }
    }

    /// The same without what to do, where that is another thing.
    var subject: String {
        switch user {
        case .claim(let claim):
            return "\(path) is in use\(claim.users)"
        case .processes(let users):
            let names = users.prefix(3).map { "\($0.name) (process \($0.id))" }.joined(separator: ", ")
            return "\(path) is in use\(names.isEmpty ? "" : " by \(names)")"
        case .unknown(let why):
            return "\(path) may be in use: \(why)"
        case .told(let sentence):
            return sentence
        }
    }

    /// Those of the processes that have one of the devices open, by whatever name, as far as this process may see.
    ///
    /// An open file on a network is not looked at: its server may not answer.
    /// - Parameter numbers: "major:minor" of each.
    static func processes(using numbers: [String], among processes: [Int32], _ tree: KernelTree = .machine) -> [Process] {
        var mounts = MountNamespaces()
        return processes.compactMap { id in
            let directory = "/proc/\(id)/fd"
            let isUser = ProcessFiles.names(in: directory).contains { name in
                guard let target = ProcessFiles.target(ofLink: "\(directory)/\(name)"), target.hasPrefix("/"),
                    target.hasPrefix("/dev/") || !mounts.table(ofProcess: id).isRemote(target),
                    let number = tree.deviceNumber("\(directory)/\(name)")
                else { return false }
                return numbers.contains(number)
            }
            guard isUser else { return nil }
            let name = ProcessFiles.name(ofProcess: id)
            return Process(id: id, name: name, isOwnDisk: name == OwnDiskProcess.name && OwnDiskProcess.isOne(id))
        }
    }
}
