import BlockStorage
import Platform
import Ublk

/// Whoever is stopped by a device without a server, however far above it: file systems mounted from it, swap, and images of
/// other devices, on the disk, its partitions, and whatever lies on these.
///
/// Found by what the kernel tells of mounts and devices alone: whoever looks for a mount point that hangs, hangs.
struct MountsThatHang {
    /// A device without a server.
    struct Stop: Equatable {
        enum Effect {
            /// Until it has one.
            case waitsForServer
            /// It gets none: nobody knows what it serves.
            case waitsForNobody
            case fails
        }

        let id: UInt32
        let effect: Effect

        var path: String { UblkPaths.blockDevice(id) }
    }

    /// The mounts of one namespace.
    struct Namespace {
        let table: MountTable
        /// A process that is in it; nil: the machine's own.
        let process: Int32?
    }

    /// A device of this program and the files that it needs.
    struct Served {
        let id: UInt32
        let files: [String]
    }

    private let namespaces: [Namespace]
    private let devices: [Served]
    private let stops: [Stop]
    private let swaps: String
    private let tree: KernelTree

    init(_ known: [KnownDevice], stops: [Stop]) {
        // All processes are looked at for it.
        let hasStops = !stops.isEmpty
        self.init(
            namespaces: hasStops ? MountsThatHang.namespaces : [],
            devices: known.compactMap { device in
                device.record.map { Served(id: device.id, files: hasStops ? StackedDevices.files(of: $0) : []) }
            },
            stops: stops,
            swaps: String(decoding: readSmallFile("/proc/swaps", limitBytes: 65_536) ?? [], as: UTF8.self), .unopened)
    }

    init(namespaces: [Namespace], devices: [Served], stops: [Stop], swaps: String, _ tree: KernelTree) {
        self.namespaces = namespaces
        self.devices = devices
        self.stops = stops
        self.swaps = swaps
        self.tree = tree
    }

    private static var namespaces: [Namespace] {
        [Namespace(table: .ofMachine, process: nil), Namespace(table: .current, process: nil)]
            + MountNamespaces.inhabitants.map { Namespace(table: .read("/proc/\($0)/mountinfo"), process: $0) }
    }

    var findings: [Finding] { stops.flatMap(findings) }

    private func findings(_ stop: Stop) -> [Finding] {
        let reached = reached(by: stop)
        var findings: [Finding] = []
        if !reached.mounts.isEmpty {
            let verb = stop.effect == .fails ? "fails" : "hangs"
            findings.append(
                Finding(
                    "mounts", .warning,
                    Diagnosis(
                        "what is mounted at \(list(reached.mounts)) \(verb), since \(stop.path) \(stop.why)",
                        remedy: stop.remedy(after: "unmount that"))))
        }
        if !reached.swaps.isEmpty {
            findings.append(
                Finding(
                    "swap", .warning,
                    Diagnosis(
                        "what was swapped out to \(list(reached.swaps)) is out of reach, since \(stop.path) \(stop.why)",
                        remedy: stop.remedy(after: "swapoff"))))
        }
        findings += reached.images.map { id in
            Finding(
                "images", .warning,
                Diagnosis(
                    "the image of \(UblkPaths.blockDevice(id)) lies on \(stop.path), which \(stop.why)",
                    remedy: stops.contains { $0.id == id } && stop.effect == .waitsForServer
                        ? "qed-ublk recover --all" : stop.remedy(after: "qed-ublk del --force \(id)")))
        }
        return findings
    }

    /// Not more than can be read.
    private func list(_ places: [String]) -> String {
        let most = 10
        let more = places.count > most ? " and \(places.count - most) more places" : ""
        return places.prefix(most).joined(separator: ", ") + more
    }

    // MARK: - What lies on what

    private struct Reached {
        var mounts: [String] = []
        var swaps: [String] = []
        var images: [UInt32] = []
    }

    private func reached(by stop: Stop) -> Reached {
        var reached = Reached()
        var seen = Set<String>()
        var disks = [stop.path]
        let loops = tree.blockDevices.compactMap { name in
            tree.line("/sys/class/block/\(name)/loop/backing_file").map { (node: KernelTree.node(name), file: $0) }
        }
        let machine = namespaces.first?.table ?? MountTable("")
        while let disk = disks.popLast() {
            let stack = DiskStack(ofDiskAt: disk, tree)
            guard seen.insert(disk).inserted else { continue }
            for mount in mounts(of: stack, below: stop) where !reached.mounts.contains(mount) { reached.mounts.append(mount) }
            for swap in swaps(on: stack, machine) where !reached.swaps.contains(swap) { reached.swaps.append(swap) }
            disks += loops.filter { StackedDevices.isFile($0.file, on: stack, machine, tree.deviceNumber) }.map(\.node)
            for device in devices where device.id != stop.id && !reached.images.contains(device.id) {
                guard device.files.contains(where: { StackedDevices.isFile($0, on: stack, machine, tree.deviceNumber) }) else {
                    continue
                }
                reached.images.append(device.id)
                // What lies on one that has stopped by itself is said of that.
                if !stops.contains(where: { $0.id == device.id }) { disks.append(UblkPaths.blockDevice(device.id)) }
            }
        }
        return reached
    }

    /// Mount points, and through what they are the disk's, or in whose namespace.
    private func mounts(of stack: DiskStack, below stop: Stop) -> [String] {
        let own = Set(DiskDevices(ofDiskAt: stop.path, tree).names)
        var places: [String] = []
        var known = Set<String>()
        for namespace in namespaces {
            let mounts = namespace.table.visibleMounts(
                ofDevices: stack.numbers, named: namesOfBtrfs(stack.names), tree.deviceNumber)
            for mount in mounts where known.insert(mount.mountPoint).inserted {
                let name = stack.names.first { tree.number($0) == mount.device || KernelTree.node($0) == mount.source }
                let through = name.flatMap { own.contains($0) ? nil : "on \(KernelTree.node($0))" }
                let whose = namespace.process.map { "as \(ProcessFiles.name(ofProcess: $0)), process \($0), sees it" }
                let notes = [through, whose].compactMap { $0 }.joined(separator: ", ")
                places.append(notes.isEmpty ? mount.mountPoint : "\(mount.mountPoint) (\(notes))")
            }
        }
        return places
    }

    /// With the other devices of each file system that has several, only one of which a mount names.
    private func namesOfBtrfs(_ names: [String]) -> [String] {
        let systems = tree.names("/sys/fs/btrfs").map { tree.names("/sys/fs/btrfs/\($0)/devices") }
        return names + systems.filter { !Set($0).isDisjoint(with: names) }.flatMap { $0 }
    }

    /// Devices and files that are swapped to.
    private func swaps(on stack: DiskStack, _ machine: MountTable) -> [String] {
        swaps.split(separator: "\n").dropFirst().compactMap { line in
            let path = String(line.prefix { $0 != " " && $0 != "\t" })
            return StackedDevices.isFile(path, on: stack, machine, tree.deviceNumber) ? path : nil
        }
    }
}

extension MountsThatHang.Stop {
    fileprivate var why: String {
        switch effect {
        case .waitsForServer: "waits for a server"
        case .waitsForNobody: "has no server, and gets none"
        case .fails: "has lost its server for good"
        }
    }

    /// - Parameter then: what its users have to do where the device has no future.
    fileprivate func remedy(after then: String) -> String {
        switch effect {
        case .waitsForServer: "qed-ublk recover \(id)"
        case .waitsForNobody: "if it is no other program's: qed-ublk del --force \(id), which has all of it fail; then \(then)"
        case .fails: "\(then); then qed-ublk del \(id)"
        }
    }
}
