import Glibc
import Platform

/// The capabilities of this process's threads, each of which has its own: what a look at them finds.
enum ThreadCapabilities {
    private static let directory = "/proc/self/task"

    /// The name of a thread of this process that has one, or of which that cannot be said; nil: no thread has.
    ///
    /// Workers of rings are left out: they are the kernel's own, and have for each request the rights of whoever made it.
    static func threadWithSome() -> String? {
        let threads = ProcessFiles.names(in: directory).filter { Int32($0) != nil }
        if threads.isEmpty { return directory }
        for thread in threads {
            guard let status = readSmallFile("\(directory)/\(thread)/status", limitBytes: 65_536).map({ Fields($0) }) else {
                // It has ended.
                if access("\(directory)/\(thread)", F_OK) != 0 { continue }
                return thread
            }
            if let name = status["Name"], name.hasPrefix("iou-") { continue }
            if !status.hasNone { return status["Name"] ?? thread }
        }
        return nil
    }

    /// Whether the calling thread's process may look at the open files of all others (CAP_SYS_PTRACE). Where that cannot be
    /// known it may: it looks then.
    static var maySeeAll: Bool {
        guard let status = readSmallFile("/proc/self/status", limitBytes: 65_536) else { return true }
        return Fields(status).maySeeAll
    }

    /// Of a thread's status, as the kernel writes it.
    struct Fields {
        private let values: [Substring: Substring]

        init(_ text: [UInt8]) {
            var values: [Substring: Substring] = [:]
            for line in String(decoding: text, as: UTF8.self).split(separator: "\n") {
                guard let colon = line.firstIndex(of: ":") else { continue }
                values[line[..<colon]] = line[line.index(after: colon)...].drop { $0 == "\t" }
            }
            self.values = values
        }

        subscript(name: Substring) -> String? { values[name].map(String.init) }

        var maySeeAll: Bool {
            // CAP_SYS_PTRACE of linux/capability.h.
            self["CapEff"].flatMap { UInt64($0, radix: 16) }.map { $0 & 1 << 19 != 0 } ?? true
        }

        /// It has no capability: none that it uses, could use, or would pass on.
        var hasNone: Bool {
            ["CapInh", "CapPrm", "CapEff", "CapAmb"].allSatisfy { name in
                self[name].map { !$0.isEmpty && $0.allSatisfy { $0 == "0" } } ?? false
            }
        }
    }
}
