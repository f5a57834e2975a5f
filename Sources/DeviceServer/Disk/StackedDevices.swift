import BlockStorage
import Platform

/// Devices whose images lie on disks of others of them: by what they have to be taken down, and brought up.
///
/// No file is touched: one on a disk that waits for its server does not answer.
enum StackedDevices {
    /// Each before those on whose disks its image, or another file that its server has open, lies; else by number.
    static func topFirst(_ records: [DeviceRecord]) -> [DeviceRecord] {
        let heights = heights(of: records)
        return records.sorted { (heights[$0.deviceID] ?? 0, $1.deviceID) > (heights[$1.deviceID] ?? 0, $0.deviceID) }
    }

    /// Each after those on whose disks its files lie; else by number.
    static func bottomFirst(_ records: [DeviceRecord]) -> [DeviceRecord] {
        let heights = heights(of: records)
        return records.sorted { (heights[$0.deviceID] ?? 0, $0.deviceID) < (heights[$1.deviceID] ?? 0, $1.deviceID) }
    }

    private static func heights(of records: [DeviceRecord]) -> [UInt32: Int] {
        var files: [UInt32: [String]] = [:]
        var stacks: [UInt32: DiskStack] = [:]
        for record in records {
            files[record.deviceID] = self.files(of: record)
            stacks[record.deviceID] = DiskStack(ofDiskAt: "/dev/ublkb\(record.deviceID)")
        }
        return heights(
            of: records.map(\.deviceID), files: files, stacks: stacks, mounts: .ofMachine, KernelTree.machine.deviceNumber)
    }

    /// How many of the devices lie beneath each, one on top of the other.
    static func heights(
        of ids: [UInt32], files: [UInt32: [String]], stacks: [UInt32: DiskStack], mounts: MountTable,
        _ deviceNumber: (String) -> String?
    ) -> [UInt32: Int] {
        var beneath: [UInt32: [UInt32]] = [:]
        for id in ids {
            beneath[id] = ids.filter { other in
                guard other != id, let stack = stacks[other] else { return false }
                return (files[id] ?? []).contains { isFile($0, on: stack, mounts, deviceNumber) }
            }
        }
        // A circle, which nobody could make, has an end here too.
        var heights: [UInt32: Int] = [:]
        for _ in ids {
            for id in ids { heights[id] = ((beneath[id] ?? []).map { heights[$0] ?? 0 }.max() ?? -1) + 1 }
        }
        return heights
    }

    /// Whether a file lies on the stack, or is a device of it.
    static func isFile(
        _ path: String, on stack: DiskStack, _ mounts: MountTable, _ deviceNumber: (String) -> String?
    ) -> Bool {
        if stack.names.contains(where: { KernelTree.node($0) == path }) { return true }
        // A volume by its name, where that is a node and no link to the kernel's.
        if path.hasPrefix("/dev/"), let number = deviceNumber(path) { return stack.numbers.contains(number) }
        guard let mount = mounts.mount(ofFile: path) else { return false }
        return MountTable(mounts: [mount]).mountPoints(ofDevices: stack.numbers, named: stack.names, deviceNumber) != []
    }

    /// The image, and what its server has open.
    static func files(of record: DeviceRecord) -> [String] { [record.imagePath] + openFiles(of: record.server) }

    private static func openFiles(of server: ProcessIdentity) -> [String] {
        guard server.isRunning else { return [] }
        let directory = "/proc/\(server.id)/fd"
        return ProcessFiles.names(in: directory).compactMap { ProcessFiles.target(ofLink: "\(directory)/\($0)") }
            .filter { $0.hasPrefix("/") }
    }
}
