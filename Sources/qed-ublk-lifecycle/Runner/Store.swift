import BlockStorage
import Glibc
import Platform

/// The file system in which the images lie, on a disk in memory; and another one, whose mount takes the number that the
/// kernel made up for the first one, where it does that (btrfs).
struct Store {
    static let directory = "/images"
    let kind: String
    private var otherIsMounted = false

    init(kind: String) { self.kind = kind }

    static func path(_ name: String) -> String { "\(directory)/\(name).qed" }

    mutating func make() throws(Breach) {
        for disk in 0..<2 {
            try Store.run(
                kind == "btrfs" ? ["mkfs.btrfs", "-q", "-f", "/dev/ram\(disk)"] : ["mkfs.ext4", "-q", "-F", "/dev/ram\(disk)"])
        }
        for directory in [Store.directory, "/other"] { mkdir(directory, 0o755) }
        try mount()
    }

    private func mount() throws(Breach) { try Store.run(["mount", "/dev/ram0", Store.directory]) }

    /// Servers that live have files of it open; those that are dead have nothing.
    mutating func remount(otherFirst: Bool) throws(Breach) {
        try unmount()
        if otherIsMounted != otherFirst { try Store.run(otherFirst ? ["mount", "/dev/ram1", "/other"] : ["umount", "/other"]) }
        otherIsMounted = otherFirst
        try mount()
    }

    mutating func unmount() throws(Breach) { try Store.run(["umount", Store.directory]) }

    mutating func end() {
        try? unmount()
        if otherIsMounted { try? Store.run(["umount", "/other"]) }
        otherIsMounted = false
    }

    /// Runs a program of the system, which must succeed within the deadline.
    static func run(_ arguments: [String]) throws(Breach) {
        let process = try Subprocess(arguments)
        let end = process.wait(seconds: Deadline.seconds)
        let said = process.takeOutput()
        guard end == .exit(0) else {
            throw Breach("\(arguments.joined(separator: " ")): \(end): \(said.errors)\(said.output)")
        }
    }
}

/// A file on the store.
struct StoredImage {
    /// An inode number alone is used again by the next file.
    var identity: FileIdentity
    /// What the header says.
    var sizeMiB: Int
    /// That a server keeps a log, and that the image needs a check.
    var isMarked: Bool

    /// nil where there is none.
    init?(_ path: String) {
        guard let identity = FileIdentity(ofFileAt: path) else { return nil }
        self.identity = identity
        guard let header = SmallFile.bytes(path, limit: 64)?.prefix(64), header.count == 64 else { return nil }
        func word(_ offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(header[offset + $1]) << (8 * UInt64($1)) } }
        sizeMiB = Int(word(48) >> 20)
        isMarked = word(16) & 2 != 0 && word(32) >> 63 != 0
    }

    /// Changes when a byte of the file does.
    static func fingerprint(_ path: String) -> UInt64? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        var part = [UInt64](repeating: 0, count: 131_072)
        while true {
            let count = Glibc.read(descriptor, &part, part.count * 8)
            guard count > 0 else { return hash }
            for index in 0..<(count + 7) / 8 { hash = (hash ^ part[index]) &* 0x100_0000_01b3 }
        }
    }
}
