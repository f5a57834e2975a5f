import BlockStorage

/// What has a disk exclusively: file systems that are mounted from it, swap, or another device on top of it.
struct DiskClaim: CustomStringConvertible {
    /// Where its file systems are mounted, as the machine's first process sees it.
    var mountPoints: [String] = []
    var isSwap = false
    /// "dm-0".
    var holders: [String] = []

    /// As far as this process may see; nothing of it where that is in another namespace.
    static func now(ofDiskAt path: String) -> DiskClaim {
        let devices = DiskDevices(ofDiskAt: path)
        let swaps = readSmallFile("/proc/swaps", limitBytes: 65_536) ?? []
        return DiskClaim(
            mountPoints: MountTable.ofMachine.mountPoints(ofDisk: path, diskDevices: devices.numbers),
            isSwap: isSwap(devices, swaps: String(decoding: swaps, as: UTF8.self)), holders: devices.holders)
    }

    /// - Parameter swaps: the content of /proc/swaps, where a line begins with a device's path.
    static func isSwap(_ devices: DiskDevices, swaps: String) -> Bool {
        swaps.split(separator: "\n").contains { line in
            devices.names.contains { line.hasPrefix("/dev/\($0) ") || line.hasPrefix("/dev/\($0)\t") }
        }
    }

    /// How a sentence goes on after "is in use": by what, and what to do.
    var description: String {
        if !mountPoints.isEmpty {
            let more = mountPoints.count > 3 ? " and \(mountPoints.count - 3) more places" : ""
            return ", mounted at \(mountPoints.prefix(3).joined(separator: ", "))\(more); unmount it first"
        }
        if isSwap { return " as swap; use swapoff first" }
        if !holders.isEmpty { return " by \(holders.prefix(3).joined(separator: ", ")); remove that first" }
        return "; unmount it first"
    }
}
