import BlockStorage
import Platform

/// What the kernel has a disk for: file systems that are mounted from it, swap, another device on top of it, or a server of
/// the kernel's own. That of its partitions, and of the devices on top, counts as the disk's.
struct DiskClaim: Equatable, Sendable, CustomStringConvertible {
    /// Where file systems are mounted, as the machine's first process sees it.
    var mountPoints: [String] = []
    var isSwap = false
    /// Directly on the disk or a partition: "dm-0", "loop1".
    var holders: [String] = []
    /// In words.
    var exporters: [String] = []

    /// As far as this process may see; nothing of it where that is in another namespace.
    static func now(ofDiskAt path: String, _ tree: KernelTree = .machine) -> DiskClaim {
        let swaps = readSmallFile("/proc/swaps", limitBytes: 65_536) ?? []
        return DiskClaim(
            DiskStack(ofDiskAt: path, tree), mounts: .ofMachine, swaps: String(decoding: swaps, as: UTF8.self), tree)
    }

    init(mountPoints: [String] = [], isSwap: Bool = false, holders: [String] = [], exporters: [String] = []) {
        self.mountPoints = mountPoints
        self.isSwap = isSwap
        self.holders = holders
        self.exporters = exporters
    }

    init(_ stack: DiskStack, mounts: MountTable, swaps: String, _ tree: KernelTree) {
        let numbers = stack.numbers
        self.init(
            mountPoints: mounts.mountPoints(ofDevices: numbers, named: stack.names, tree.deviceNumber),
            isSwap: DiskClaim.isSwap(stack.names, swaps: swaps), holders: stack.holders,
            exporters: ExportedDisks.exporters(of: numbers, tree))
    }

    var isEmpty: Bool { self == DiskClaim() }

    /// - Parameter swaps: the content of /proc/swaps, where a line begins with a device's path.
    static func isSwap(_ names: [String], swaps: String) -> Bool {
        swaps.split(separator: "\n").contains { line in
            names.contains { line.hasPrefix("/dev/\($0) ") || line.hasPrefix("/dev/\($0)\t") }
        }
    }

    /// How a sentence goes on after "is in use": by what, and what to do.
    var description: String { "\(users)\(advice)" }

    /// How it goes on by what alone.
    var users: String {
        if !mountPoints.isEmpty {
            let more = mountPoints.count > 3 ? " and \(mountPoints.count - 3) more places" : ""
            return ", mounted at \(mountPoints.prefix(3).joined(separator: ", "))\(more)\(through)"
        }
        if isSwap { return " as swap\(through)" }
        let others = holders + exporters
        return others.isEmpty ? "" : " by \(others.prefix(3).joined(separator: ", "))"
    }

    private var through: String { holders.isEmpty ? "" : " through \(holders.prefix(3).joined(separator: ", "))" }

    private var advice: String {
        let andRemove = holders.isEmpty ? "" : " and remove what is on top of it"
        if !mountPoints.isEmpty { return "; unmount it\(andRemove) first" }
        if isSwap { return "; use swapoff\(andRemove) first" }
        return holders.isEmpty && exporters.isEmpty ? "; unmount it first" : "; remove that first"
    }
}
