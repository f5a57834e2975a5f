import BlockStorage
import Platform

/// What the control group of who asks may have of memory: that of a server as well, unless it leaves the group
/// (`Detachment.leaveControlGroup`).
struct ControlGroupMemory: Equatable {
    /// The least of the group's and of those that it lies in; nil: none.
    let limitBytes: UInt64?
    /// How many processes of the group the kernel has killed for want of memory.
    let killCount: UInt64

    /// What a server takes at most with the usual options: tables, the buffers of requests, the program.
    private static let usualServerBytes: UInt64 = 96 << 20

    static var current: ControlGroupMemory { ControlGroupMemory(.machine) }

    init(limitBytes: UInt64?, killCount: UInt64) {
        self.limitBytes = limitBytes
        self.killCount = killCount
    }

    init(_ tree: KernelTree) {
        // The last line where there are hierarchies of the old kind too.
        let entry = tree.lines("/proc/self/cgroup").first { $0.hasPrefix("0::/") }
        var names = entry?.dropFirst(4).split(separator: "/") ?? []
        func file(_ name: String) -> String { "/sys/fs/cgroup/\(names.joined(separator: "/"))/\(name)" }
        let kills = tree.lines(file("memory.events")).first { $0.hasPrefix("oom_kill ") }
        killCount = kills.flatMap { UInt64($0.dropFirst("oom_kill ".count)) } ?? 0
        var least: UInt64?
        while !names.isEmpty {
            if let limit = tree.line(file("memory.max")).flatMap({ UInt64($0) }) { least = min(least ?? limit, limit) }
            names.removeLast()
        }
        limitBytes = least
    }

    private static let remedy = "raise MemoryMax, or add with smaller --cache-size, --queues and --depth"

    /// nil where a server with the usual options has enough.
    var shortage: Diagnosis? {
        guard let limitBytes, limitBytes < ControlGroupMemory.usualServerBytes else { return nil }
        return Diagnosis(
            "the control group may have \(limitBytes >> 20) MiB, and a server with the usual options takes up to "
                + "\(ControlGroupMemory.usualServerBytes >> 20) MiB", remedy: ControlGroupMemory.remedy)
    }

    /// Why a server died that was started in this group; nil where memory has nothing to do with it.
    /// - Parameter now: after its death.
    func cause(ofDeath now: ControlGroupMemory) -> Diagnosis? {
        guard now.killCount > killCount else { return nil }
        return now.shortage ?? Diagnosis("the kernel killed it, for want of memory", remedy: ControlGroupMemory.remedy)
    }
}
