import Glibc
import Ublk

/// What a server has of the disk that it is to serve, which has been made and mounted before. Whatever it is, using it means
/// to wait for the disk, and so for itself.
enum OwnDiskHolds {
    /// - Returns: the first that is found, for the beginning of a sentence. Looks only at what is in memory.
    static func first(ofDevice id: UInt32) -> String? {
        let path = UblkPaths.blockDevice(id)
        let devices = Set(DiskDevices(ofDiskAt: path).numbers)
        let mounts = MountTable.current.mountPoints(ofDisk: path, diskDevices: Array(devices))
        // Of file systems that have no device number of their own.
        let further = Set(MountTable.current.mounts.lazy.filter { mounts.contains($0.mountPoint) }.map(\.device))
        return first(onDevices: devices.union(further))
    }

    /// - Parameter devices: "major:minor" of each.
    static func first(onDevices devices: Set<String>) -> String? {
        func lies(_ status: stat) -> Bool {
            // As the C library takes device numbers apart.
            let device = UInt64(status.st_dev)
            let major = ((device >> 8) & 0xfff) | ((device >> 32) & ~0xfff)
            let minor = (device & 0xff) | ((device >> 12) & ~0xff)
            return devices.contains("\(major):\(minor)")
        }
        var status = stat()
        for (descriptor, name) in [(0, "standard input"), (1, "standard output"), (2, "standard error")]
        where fstat(Int32(descriptor), &status) == 0 && lies(status) {
            return "the server's \(name)"
        }
        if stat("/proc/self/exe", &status) == 0 && lies(status) { return "this program's own file" }
        if stat("/", &status) == 0 && lies(status) { return "this process's root directory" }
        return nil
    }
}
