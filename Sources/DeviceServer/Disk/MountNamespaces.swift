import BlockStorage
import Platform

/// The mount tables of other processes, read once for each namespace that they are in.
struct MountNamespaces {
    private var tables: [String: MountTable] = [:]

    /// Empty where it may not be read.
    mutating func table(ofProcess id: Int32) -> MountTable {
        guard let namespace = ProcessFiles.target(ofLink: "/proc/\(id)/ns/mnt") else { return MountTable("") }
        if let table = tables[namespace] { return table }
        let table = MountTable.read("/proc/\(id)/mountinfo")
        tables[namespace] = table
        return table
    }

    /// Whether no other process is in this one's, which is not the machine's. False where that cannot be known: who may see the
    /// first process's may see all.
    static var hasOnlyThisProcess: Bool {
        if link(ofProcess: "1") != nil { return isAlone(by: link) }
        // One that may not see others' namespaces may read what is mounted there: a mount has a number of its own on the machine,
        // and is in one namespace.
        return isAlone(by: firstMount)
    }

    /// - Parameter identity: what tells the namespace of a process from others'; nil where it cannot be known.
    private static func isAlone<Identity: Equatable>(by identity: (_ process: String) -> Identity?) -> Bool {
        guard let own = identity("self"), let first = identity("1"), own != first else { return false }
        return ProcessFiles.otherProcesses().allSatisfy { identity("\($0)") != own }
    }

    private static func link(ofProcess process: String) -> String? { ProcessFiles.target(ofLink: "/proc/\(process)/ns/mnt") }

    /// The first in a process's table, which is the same for all that are in one namespace and have its root.
    private static func firstMount(ofProcess process: String) -> Int? {
        let beginning = ProcessFiles.beginning(of: "/proc/\(process)/mountinfo", limitBytes: 64)
        return Int(String(decoding: beginning.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self))
    }

    /// One process in each namespace that this one may see.
    static var inhabitants: [Int32] {
        var found = Set<String>()
        return ProcessFiles.otherProcesses().filter { id in
            ProcessFiles.target(ofLink: "/proc/\(id)/ns/mnt").map { found.insert($0).inserted } ?? false
        }
    }
}
