import BlockStorage
import Glibc
import Platform

/// A process, told apart from a later one that has got the same id: by when it started.
public struct ProcessIdentity: Equatable, Sendable {
    public var id: Int32
    /// Clock ticks after boot: field 22 of /proc/PID/stat.
    public var startTicks: UInt64

    public init(id: Int32, startTicks: UInt64) {
        self.id = id
        self.startTicks = startTicks
    }

    /// The process of this id, if it runs. A zombie does not: its files are closed.
    public init?(running id: Int32) {
        guard id > 0, let stat = readSmallFile("/proc/\(id)/stat", limitBytes: 4096),
            let fields = ProcessStat(stat), fields.isAlive
        else { return nil }
        self.id = id
        startTicks = fields.startTicks
    }

    /// This process; nil where /proc is not mounted.
    public static var current: ProcessIdentity? { ProcessIdentity(running: getpid()) }

    /// Whether this very process still runs.
    public var isRunning: Bool { ProcessIdentity(running: id) == self }
}

/// The two fields of /proc/PID/stat that matter here.
struct ProcessStat: Equatable {
    var isAlive: Bool
    var startTicks: UInt64

    /// - Parameter text: "PID (name) S …"; the name may hold spaces and parentheses, and so ends with the last one.
    init?(_ text: [UInt8]) {
        guard let nameEnd = text.lastIndex(of: UInt8(ascii: ")")) else { return nil }
        let fields = text[(nameEnd + 1)...].split(whereSeparator: { $0 == 0x20 || $0 == 0x0a })
        // The first field after the name is number 3.
        guard fields.count > 19, let ticks = UInt64(String(decoding: fields[19], as: UTF8.self)) else { return nil }
        isAlive = ![UInt8(ascii: "Z"), UInt8(ascii: "X"), UInt8(ascii: "x")].contains(fields[0].first ?? 0)
        startTicks = ticks
    }
}
