import CSupport
import Glibc
import SystemPackage
import Ublk

/// Has what a disk's users have not written yet written to it: what is dirty in the page caches of the disk, its partitions
/// and the devices on top of them, and in file systems that are mounted from any of these.
///
/// From the top down: what a device writes back makes the one beneath it dirty.
enum WriteBack {
    /// Only what is in the page caches of the disk and of its partitions, which are others. Waits as well.
    /// - Parameter forgets: they have nothing afterwards but what a file system that is mounted holds.
    static func flushDisk(at path: String, forgets: Bool = false, report: (String) -> Void) {
        for node in DiskDevices(ofDiskAt: path).names.reversed().map(KernelTree.node) {
            let device = open(node, O_RDONLY | O_CLOEXEC)
            guard device >= 0 else {
                report("cannot open \(node): \(Errno(rawValue: errno))")
                continue
            }
            defer { close(device) }
            let result = forgets ? cs_write_back_block_device(device) : fsync(device) == 0 ? 0 : -errno
            if result != 0 { report("\(node) cannot be flushed: \(Errno(rawValue: -result))") }
        }
    }

    /// Waits for the disk, perhaps for ever.
    /// - Parameter report: hears what could not be written back, in sentences.
    static func run(ofDiskAt path: String, report: (String) -> Void) {
        let stack = DiskStack(ofDiskAt: path)
        // What this reaches must not wait for the way to a mount point, which can lead over a server that does not answer.
        flushDevices(of: stack, report)
        if UsersService.isNeeded { askToSyncFileSystems(of: stack, path, report) } else { syncFileSystems(of: stack, report) }
        flushDevices(of: stack, report)
    }

    /// Where this process may not go where others have them mounted.
    private static func askToSyncFileSystems(of stack: DiskStack, _ path: String, _ report: (String) -> Void) {
        if let unwritten = UblkPaths.deviceID(ofBlockDevice: path).flatMap({ UsersService.writeBack(device: $0) }) {
            return unwritten.forEach(report)
        }
        let mounts = MountTable.ofMachine.mountPoints(
            ofDevices: stack.numbers, named: stack.names, KernelTree.machine.deviceNumber)
        guard let place = mounts.first else { return }
        report("what is mounted at \(place) may not have been written back, because qed-ublk-users.socket does not answer")
    }

    private static func flushDevices(of stack: DiskStack, _ report: (String) -> Void) {
        for name in stack.names.reversed() {
            let node = KernelTree.node(name)
            let descriptor = open(node, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
            guard descriptor >= 0 else {
                // None where the device has gone meanwhile, or has no medium.
                let code = errno
                if code != ENXIO && code != ENOMEDIUM && KernelTree.machine.number(name) != nil {
                    report("\(node) cannot be written back: \(Errno(rawValue: code))")
                }
                continue
            }
            defer { close(descriptor) }
            let result = cs_write_back_block_device(descriptor)
            if result != 0 { report("\(node) cannot be written back: \(Errno(rawValue: -result))") }
        }
    }

    /// A block device does not pass a sync on to every file system that is mounted from it: not to btrfs, before Linux 6.17.
    /// And each is reached from some namespace, though never from a server's own.
    static func syncFileSystems(of stack: DiskStack, _ report: (String) -> Void) {
        let numbers = stack.numbers
        let hasSeveralDevices = stack.names.contains(where: isOfBtrfs)
        var synced = Set<String>()
        for process in MountNamespaces.inhabitants {
            let table = MountTable.read("/proc/\(process)/mountinfo")
            var mounts = table.visibleMounts(ofDevices: numbers, named: stack.names, KernelTree.machine.deviceNumber)
            // Of several devices only one is named.
            if hasSeveralDevices { mounts += table.mounts.filter { $0.fileSystem == "btrfs" } }
            for mount in mounts where synced.insert(mount.device).inserted {
                let descriptor = open("/proc/\(process)/root\(mount.mountPoint)", O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                guard descriptor >= 0 else {
                    synced.remove(mount.device)
                    continue
                }
                let result = cs_sync_file_system(descriptor)
                if result != 0 {
                    report("what is mounted at \(mount.mountPoint) cannot be written back: \(Errno(rawValue: -result))")
                }
                close(descriptor)
            }
        }
    }

    private static func isOfBtrfs(_ name: String) -> Bool {
        KernelTree.machine.names("/sys/fs/btrfs").contains { access("/sys/fs/btrfs/\($0)/devices/\(name)", F_OK) == 0 }
    }
}
