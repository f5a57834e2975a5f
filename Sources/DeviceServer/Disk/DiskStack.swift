/// A disk, its partitions, and the devices that the kernel has made on top of them: device-mapper's, md's, loop devices, and
/// their partitions. Never fails: what is not there is left out.
struct DiskStack {
    /// The disk itself first; each device after all that it lies on.
    let names: [String]
    /// Those that lie directly on the disk or a partition of it: "dm-0", "loop1".
    let holders: [String]
    private let tree: KernelTree

    /// The kernel's limits are far below.
    private static let deepest = 64

    /// - Parameter path: of the disk, under /dev.
    init(ofDiskAt path: String, _ tree: KernelTree = .machine) {
        self.tree = tree
        let loops = DiskStack.loopsByBacking(tree)
        var levels = [DiskDevices(ofDiskAt: path, tree).names]
        while let top = levels.last, !top.isEmpty, levels.count < DiskStack.deepest {
            levels.append(DiskStack.devices(on: top, loops, tree))
        }
        holders = DiskStack.holders(of: levels[0], loops, tree)
        // One that lies on devices of several levels comes last.
        var found = Set<String>()
        names = levels.flatMap { $0 }.reversed().filter { found.insert($0).inserted }.reversed()
    }

    /// "major:minor" of each.
    var numbers: [String] { names.compactMap(tree.number) }

    private static func devices(on names: [String], _ loops: [String: [String]], _ tree: KernelTree) -> [String] {
        var found = Set<String>()
        return holders(of: names, loops, tree).flatMap { DiskDevices(ofDisk: $0, tree).names }
            .filter { found.insert($0).inserted }
    }

    private static func holders(of names: [String], _ loops: [String: [String]], _ tree: KernelTree) -> [String] {
        let holders = names.flatMap { name in
            tree.names("/sys/class/block/\(name)/holders") + (tree.number(name).flatMap { loops[$0] } ?? [])
        }
        return Set(holders).sorted()
    }

    /// The loop devices on each block device, which the kernel does not count as its holders: it only has the device open.
    private static func loopsByBacking(_ tree: KernelTree) -> [String: [String]] {
        var loops: [String: [String]] = [:]
        let files = tree.blockDevices.filter { $0.hasPrefix("loop") }.compactMap { name in
            tree.line("/sys/class/block/\(name)/loop/backing_file").map { (name, $0) }
        }
        let mounts = files.isEmpty ? MountTable("") : MountTable.current
        for (name, file) in files {
            // What a file on a network is, is not asked: its server may not answer. Nor is another one looked for, which may lie
            // on a disk that waits.
            guard !mounts.isRemote(file),
                let beneath = tree.loopBacking(KernelTree.node(name))
                    ?? (file.hasPrefix("/dev/") ? tree.deviceNumber(file) : nil)
            else { continue }
            loops[beneath, default: []].append(name)
        }
        return loops
    }
}
