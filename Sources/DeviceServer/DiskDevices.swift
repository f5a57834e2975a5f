import BlockStorage

/// A disk and its partitions, as /sys/class/block has them. Never waits, and never fails: what is not there is left out.
struct DiskDevices {
    /// "ublkb0", "ublkb0p1".
    let names: [String]

    /// - Parameter path: of the disk, under /dev.
    init(ofDiskAt path: String) {
        let name = path.split(separator: "/").last.map(String.init) ?? ""
        names = [name] + ProcessFiles.names(in: "/sys/class/block/\(name)").filter { $0.hasPrefix(name + "p") }
    }

    /// "major:minor" of each.
    var numbers: [String] {
        names.compactMap { name in
            readSmallFile("/sys/class/block/\(name)/dev", limitBytes: 32).map { String(decoding: $0.dropLast(), as: UTF8.self) }
        }
    }

    /// The devices that the kernel has made of them: "dm-0".
    var holders: [String] {
        names.flatMap { ProcessFiles.names(in: "/sys/class/block/\($0)/holders") }.filter { !$0.hasPrefix(".") }.sorted()
    }
}
