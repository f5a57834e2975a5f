import BlockStorage
import CSupport
import Glibc
import SystemPackage

/// The nodes of a new disk and of its partitions, under /dev.
///
/// devtmpfs makes the disk's while the driver adds the disk, and a partition's while the kernel reads the partition table.
/// Linux 6.12 has read it when START_DEV returns. Later ones read it in the background some time afterwards; from 7.0 on
/// they leave that to us where asked to, so that nobody has to guess when it has been done. What udev makes of the nodes (links,
/// owners) comes later.
struct DiskNodes {
    /// Who reads the partition table.
    enum TableReader: Equatable {
        /// By itself, as it makes the disk or soon afterwards.
        case kernel
        /// We have the kernel read it: it was asked not to do so by itself.
        case server
        case nobody
    }

    let path: String
    let tableReader: TableReader
    private let tree: KernelTree
    /// How often, 10 ms apart, is looked for what should be there already.
    private let attempts: Int

    init(ofDiskAt path: String, tableReader: TableReader, _ tree: KernelTree = .machine, attempts: Int = 500) {
        self.path = path
        self.tableReader = tableReader
        self.tree = tree
        self.attempts = attempts
    }

    /// Opening the disk waits for whoever reads the partition table, and reading it for the image's files: a process does that,
    /// because a server that waited for its own disk in the kernel could not be killed.
    /// - Parameter timeout: of that.
    /// - Returns: the nodes that should be there and are not; not the disk's own.
    /// - Throws: why the disk cannot be opened, or `timedOut`.
    func wait(timeout: Duration) throws(Errno) -> [String] {
        let process = try OwnDiskProcess(.open(tableReader), ofDiskAt: path)
        guard let said = process.wait(timeout: timeout) else { throw .timedOut }
        guard said.count == 1, let code = Int32(said[0]) else { throw .ioError }
        if code != 0 { throw Errno(rawValue: code) }
        return waitForPartitions()
    }

    private static let pauseMicroseconds: UInt32 = 10_000

    /// Opens it, once the kernel has read its partition table. udev may be changing the node's mode, or looking at the disk.
    /// - Returns: 0, or the errno of opening the disk.
    func openDisk() -> Int32 {
        var code: Int32 = 0
        for _ in 0..<attempts {
            let disk = open(path, O_RDONLY | O_CLOEXEC)
            if disk >= 0 {
                switch tableReader {
                case .kernel: waitForKernel()
                case .server: DiskNodes.readPartitions(of: disk)
                case .nobody: break
                }
                close(disk)
                return 0
            }
            code = errno
            usleep(DiskNodes.pauseMicroseconds)
        }
        return code
    }

    /// Has the kernel read its partition table. Whoever else has the disk exclusively has it as a whole, and no use for
    /// partitions.
    static func readPartitions(of disk: Int32) {
        for _ in 0..<20 {
            guard cs_read_partition_table(disk) == -EBUSY else { return }
            usleep(DiskNodes.pauseMicroseconds)
        }
    }

    /// Where the kernel reads the table in the background it says when it begins: "partscan" (Linux 6.10) changes to 1. Then the
    /// disk cannot be opened until it is done. For a server without CAP_SYS_ADMIN it stays 0, and the table is not read.
    private func waitForKernel() {
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        for _ in 0..<attempts / 2 {
            guard tree.line("/sys/class/block/\(name)/partscan") == "0" else { break }
            usleep(DiskNodes.pauseMicroseconds)
        }
        usleep(DiskNodes.pauseMicroseconds)
        let disk = open(path, O_RDONLY | O_CLOEXEC)
        if disk >= 0 { close(disk) }
    }

    /// devtmpfs has made them with the partitions. Without it they are somebody else's to make, or nobody's.
    func waitForPartitions() -> [String] {
        var missing: [String] = []
        for _ in 0..<attempts {
            missing = DiskDevices(ofDiskAt: path, tree).names.dropFirst().map(KernelTree.node)
                .filter { access(tree.root + $0, F_OK) != 0 }
            if missing.isEmpty { break }
            usleep(DiskNodes.pauseMicroseconds)
        }
        return missing
    }
}
