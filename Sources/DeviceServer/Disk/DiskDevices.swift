/// A disk and its partitions, as /sys/class/block has them. Never waits, and never fails: what is not there is left out.
struct DiskDevices {
    /// "ublkb0", "ublkb0p1".
    let names: [String]
    private let tree: KernelTree

    /// - Parameter path: of the disk, under /dev.
    init(ofDiskAt path: String, _ tree: KernelTree = .machine) {
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        self.init(ofDisk: name, tree)
    }

    /// - Parameter name: as /sys/class/block has it.
    init(ofDisk name: String, _ tree: KernelTree) {
        self.tree = tree
        names = [name] + tree.names("/sys/class/block/\(name)").filter { $0.hasPrefix(name + "p") }
    }

    /// "major:minor" of each.
    var numbers: [String] { names.compactMap(tree.number) }
}
