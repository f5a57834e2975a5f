import Glibc
import Platform

/// A mount as /proc/self/mountinfo has it.
struct Mount: Equatable {
    var id: Int
    /// The mount that it lies on; of the root one that is not in the table.
    var parentID: Int
    /// "major:minor" of the file system's device; major 0 where it has none of its own.
    var device: String
    var mountPoint: String
    /// What is mounted on it, or unmounted from it, in this namespace comes and goes in others too.
    var isShared: Bool
    /// What is mounted on it, or unmounted from it, in another namespace comes and goes here too.
    var isFollower: Bool
    var fileSystem: String
    /// What was named when it was mounted: of file systems on a disk the disk.
    var source: String

    /// - Parameter line: "36 35 98:0 /root /mnt rw,noatime shared:1 master:2 - ext4 /dev/sda1 rw".
    init?(_ line: Substring) {
        let fields = line.split(separator: " ")
        guard let separator = fields.firstIndex(of: "-"), separator >= 6, fields.count > separator + 2,
            let id = Int(fields[0]), let parentID = Int(fields[1])
        else { return nil }
        self.id = id
        self.parentID = parentID
        device = String(fields[2])
        mountPoint = Mount.unescaped(fields[4])
        isShared = fields[6..<separator].contains { $0.hasPrefix("shared:") }
        isFollower = fields[6..<separator].contains { $0.hasPrefix("master:") }
        fileSystem = String(fields[separator + 1])
        source = Mount.unescaped(fields[separator + 2])
    }

    /// Another machine, or a process, answers for its files.
    var isRemote: Bool {
        ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "afs", "virtiofs", "lustre", "gfs2", "ocfs2", "orangefs", "autofs"]
            .contains(fileSystem) || fileSystem.hasPrefix("fuse")
    }

    /// A path that is a directory's own counts.
    static func isPath(_ path: String, below directory: String) -> Bool {
        guard path.hasPrefix(directory) else { return false }
        let next = path.utf8.dropFirst(directory.utf8.count).first
        return directory.hasSuffix("/") || next == nil || next == UInt8(ascii: "/")
    }

    /// Blanks and backslashes are written as \040 and the like.
    private static func unescaped(_ text: Substring) -> String {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            if byte == UInt8(ascii: "\\"), rest.count >= 3,
                let value = UInt8(String(decoding: rest.prefix(3), as: UTF8.self), radix: 8)
            {
                bytes.append(value)
                rest = rest.dropFirst(3)
            } else {
                bytes.append(byte)
            }
        }
        return String(decoding: bytes, as: UTF8.self)
    }
}

/// The mounts of a namespace.
struct MountTable {
    var mounts: [Mount]

    static let path = "/proc/self/mountinfo"

    /// Of this process's namespace; empty where it cannot be read.
    static var current: MountTable { read(path) }

    /// Of the machine's first process; of this one where that may not be read. A server's own namespace does not have what it
    /// has detached there.
    static var ofMachine: MountTable {
        let table = read("/proc/1/mountinfo")
        return table.mounts.isEmpty ? current : table
    }

    /// Of the namespace that a mountinfo file is of; empty where it cannot be read.
    static func read(_ path: String) -> MountTable {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return MountTable("") }
        defer { close(descriptor) }
        var content: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 32_768)
        while true {
            let count = Glibc.read(descriptor, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { break }
            content += piece.prefix(count)
        }
        return MountTable(String(decoding: content, as: UTF8.self))
    }

    init(mounts: [Mount]) { self.mounts = mounts }

    func mount(id: Int) -> Mount? { mounts.first { $0.id == id } }

    init(_ text: String) { mounts = text.split(separator: "\n").compactMap(Mount.init) }

    /// Whether a copy of this namespace hears of every unmount in it: each mount lies on one that is shared. Of the kernel's
    /// handles of namespaces nobody waits to be rid.
    var tellsOfUnmounts: Bool {
        guard let root = mounts.first(where: { $0.mountPoint == "/" }), root.isShared else { return false }
        // A host of containers has thousands of mounts, and this is looked at before a device is made.
        let notShared = Set(mounts.lazy.filter { !$0.isShared }.map(\.id))
        return mounts.allSatisfy { $0.fileSystem == "nsfs" || !notShared.contains($0.parentID) }
    }

    /// Whether mounts come and go here as they do in another namespace, though not there as they do here: somebody made a copy of
    /// that.
    var followsOthers: Bool { mounts.first { $0.mountPoint == "/" }?.isFollower == true }

    /// Where mounts lie that would stay here when they have been unmounted outside, though others would not: on one that is
    /// nobody's but the first process's (`mount --make-private`; podman keeps its containers on one). A service manager that
    /// makes a namespace for a server copies them.
    /// - Parameters:
    ///   - machine: the first process's table. What only this namespace has was put there for it.
    ///   - kept: mounts that are needed: those beneath them are, too.
    func unheardMountPoints(
        _ machine: @autoclosure () -> MountTable, besides kept: @autoclosure () -> Set<Int>
    ) -> [String] {
        guard followsOthers else { return [] }
        let leaders = mounts.filter { !$0.isFollower }
        guard !leaders.isEmpty else { return [] }
        let machine = machine().mounts
        let silent = Set(
            leaders.lazy.filter { mount in
                machine.contains { $0.mountPoint == mount.mountPoint && $0.device == mount.device }
            }.map(\.id))
        let parents = Dictionary(mounts.map { ($0.id, $0.parentID) }) { first, _ in first }
        var needed = Set<Int>()
        for id in kept() {
            var next: Int? = id
            while let mount = next, needed.insert(mount).inserted { next = parents[mount] }
        }
        return visible { silent.contains($0.parentID) && $0.fileSystem != "nsfs" && !needed.contains($0.id) }.map(\.mountPoint)
    }

    /// The mounts that open files of this process lie on.
    static var ofOpenFiles: Set<Int> { Set(ProcessFiles.names(in: "/proc/self/fd").compactMap { Int32($0) }.compactMap(mountID)) }

    static func mountID(ofOpenFile descriptor: Int32) -> Int? {
        let text = readSmallFile("/proc/self/fdinfo/\(descriptor)", limitBytes: 65_536) ?? []
        let line = String(decoding: text, as: UTF8.self).split(separator: "\n").first { $0.hasPrefix("mnt_id:") }
        return line.flatMap { Int($0.dropFirst(7).drop { $0 == "\t" || $0 == " " }) }
    }

    /// The mounts of file systems on any of the devices over which nothing else is mounted.
    /// - Parameters:
    ///   - numbers: "major:minor" of each; a file system of several devices has a number of its own instead.
    ///   - names: as in /sys/class/block.
    ///   - deviceNumber: of a node under /dev.
    func visibleMounts(ofDevices numbers: [String], named names: [String], _ deviceNumber: (String) -> String?) -> [Mount] {
        let nodes = Set(names.map(KernelTree.node))
        return visible { mount in
            if numbers.contains(mount.device) || nodes.contains(mount.source) { return true }
            guard mount.source.hasPrefix("/dev/"), let number = deviceNumber(mount.source) else { return false }
            return numbers.contains(number)
        }
    }

    /// Where file systems on any of the devices are mounted and nothing else is mounted over that.
    func mountPoints(ofDevices numbers: [String], named names: [String], _ deviceNumber: (String) -> String?) -> [String] {
        visibleMounts(ofDevices: numbers, named: names, deviceNumber).map(\.mountPoint)
    }

    private func visible(_ isMeant: (Mount) -> Bool) -> [Mount] {
        mounts.filter(isMeant).filter { mount in
            !mounts.contains { $0.parentID == mount.id && $0.mountPoint == mount.mountPoint }
        }
    }

    /// The mount that a file lies on, as far as its path tells; nil where it is in no namespace of this table's kind.
    func mount(ofFile path: String) -> Mount? {
        // Of several at one place the last one is on top.
        mounts.filter { Mount.isPath(path, below: $0.mountPoint) }.enumerated()
            .max { ($0.element.mountPoint.utf8.count, $0.offset) < ($1.element.mountPoint.utf8.count, $1.offset) }?.element
    }

    /// Whether a file lies where another machine or a process answers for it, as far as its path tells.
    func isRemote(_ path: String) -> Bool {
        mounts.contains { $0.isRemote && Mount.isPath(path, below: $0.mountPoint) }
    }
}
