import BlockStorage
import Platform

/// What a server takes of the machine's memory, in bytes.
public struct ServerMemory: Equatable, Sendable {
    /// What is in memory of it, the I/O buffers included; of the program and its libraries what it uses.
    public var residentBytes: UInt64
    /// What of that cannot be swapped out.
    public var lockedBytes: UInt64

    /// Of a process; nil where it is gone or this one may not know.
    ///
    /// From /proc/PID/smaps_rollup (Linux 4.14): what /proc/PID/status calls locked is address space, used or not.
    public init?(process id: Int32) {
        guard let content = readSmallFile("/proc/\(id)/smaps_rollup", limitBytes: 16_384) else { return nil }
        self.init(String(decoding: content, as: UTF8.self))
    }

    init?(_ text: String) {
        func bytes(_ name: String) -> UInt64? {
            guard let line = text.split(separator: "\n").first(where: { $0.hasPrefix("\(name):") }),
                let kibibytes = line.split(separator: " ").dropFirst().first.flatMap({ UInt64($0) })
            else { return nil }
            return kibibytes << 10
        }
        guard let resident = bytes("Rss"), let locked = bytes("Locked") else { return nil }
        residentBytes = resident
        lockedBytes = locked
    }
}
