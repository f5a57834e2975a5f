import BlockStorage
import Glibc
import Platform
import Ublk

/// What a server has of the disk that it is to serve, which has been made and mounted before. Whatever it is, using it means
/// to wait for the disk, and so for itself.
enum OwnDiskHolds {
    /// - Returns: the first that is found, for the beginning of a sentence. Looks only at what is in memory.
    static func first(ofDevice id: UInt32) -> String? {
        let disk = DiskDevices(ofDiskAt: UblkPaths.blockDevice(id))
        let mounts = MountTable.current.visibleMounts(
            ofDevices: disk.numbers, named: disk.names, KernelTree.machine.deviceNumber)
        // A file system of several devices has a number of its own.
        return first(onDevices: Set(disk.numbers + mounts.map(\.device)))
    }

    /// - Parameter devices: "major:minor" of each.
    static func first(onDevices devices: Set<String>) -> String? {
        func lies(_ status: stat) -> Bool { devices.contains("\(DeviceNumber(status.st_dev))") }
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
