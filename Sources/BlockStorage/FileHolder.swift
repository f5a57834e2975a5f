import Glibc
import Platform

/// A process that holds a lock on a file.
public struct FileHolder: Equatable, Sendable, CustomStringConvertible {
    public let processID: Int32
    /// As `ps` shows it.
    public let name: String
    /// The block device that the process serves; nil where it is no server of one.
    public let devicePath: String?

    public init(processID: Int32, name: String, devicePath: String? = nil) {
        self.processID = processID
        self.name = name
        self.devicePath = devicePath
    }

    public var description: String {
        devicePath.map { "\($0) (served by process \(processID))" } ?? "\(name) (process \(processID))"
    }

    /// No more are named: nobody reads a longer list.
    private static let listLimit = 3
    /// Open files looked at, on a machine with very many of them.
    private static let searchLimit = 100_000

    /// The processes whose locks keep `lock` from `descriptor`'s file, as far as this process may see them: its user's
    /// own, or all for root. They may be gone by now.
    ///
    /// The kernel does not say who holds a lock of an open file description, but /proc shows the locks of each
    /// process's open files. Of the files themselves nothing is touched: one on a network may not answer.
    static func holders(against lock: FileLock, on descriptor: Int32) -> [FileHolder] {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { return [] }
        let path = ProcessFiles.target(ofLink: "/proc/self/fd/\(descriptor)")
        var holders: [FileHolder] = []
        var searched = 0
        for process in ProcessFiles.otherProcesses() {
            var isHolder = false
            var devicePath: String?
            for number in ProcessFiles.names(in: "/proc/\(process)/fd") {
                searched += 1
                guard searched < searchLimit else { return holders }
                guard let target = ProcessFiles.target(ofLink: "/proc/\(process)/fd/\(number)"),
                    target.utf8.first == UInt8(ascii: "/")
                else { continue }
                if target.hasPrefix(characterDevicePrefix) {
                    devicePath = blockDevicePrefix + target.dropFirst(characterDevicePrefix.count)
                } else if !isHolder,
                    let info = readSmallFile("/proc/\(process)/fdinfo/\(number)", limitBytes: 65_536)
                {
                    let locks = String(decoding: info, as: UTF8.self).split(separator: "\n").compactMap(HeldLock.init)
                    isHolder = locks.contains {
                        $0.inode == UInt64(status.st_ino)
                            && ($0.device == HeldLock.device(status.st_dev) || target == path)
                            && lock.isRefused(bytes: $0.bytes, isExclusive: $0.isExclusive)
                    }
                }
            }
            guard isHolder else { continue }
            holders.append(
                FileHolder(processID: process, name: ProcessFiles.name(ofProcess: process), devicePath: devicePath))
            if holders.count == listLimit { break }
        }
        return holders
    }

    private static let characterDevicePrefix = "/dev/ublkc"
    private static let blockDevicePrefix = "/dev/ublkb"
}

/// A lock as /proc/PID/fdinfo shows it: "lock: 1: OFDLCK ADVISORY READ -1 fd:01:131081 100 101".
struct HeldLock: Equatable {
    var isExclusive: Bool
    /// Major and minor number of the file system in hexadecimal digits. Those of a file in it can be others, on btrfs.
    var device: String
    var inode: UInt64
    var bytes: ClosedRange<UInt64>

    /// nil for anything but such a line. Locks of flock(2) are left out: no image is locked by them.
    init?(_ line: Substring) {
        let words = line.split(whereSeparator: \.isWhitespace)
        guard words.count == 9, words[0] == "lock:", words[2] == "OFDLCK" || words[2] == "POSIX" else { return nil }
        let file = words[6].split(separator: ":")
        guard file.count == 3, let inode = UInt64(file[2]), let first = UInt64(words[7]),
            let last = words[8] == "EOF" ? .max : UInt64(words[8]), first <= last
        else { return nil }
        isExclusive = words[4] == "WRITE"
        device = "\(file[0]):\(file[1])"
        self.inode = inode
        bytes = first...last
    }

    /// The number as the kernel prints it.
    static func device(_ number: dev_t) -> String {
        let number = DeviceNumber(number)
        return [number.major, number.minor].map {
            let digits = String($0, radix: 16)
            return digits.utf8.count < 2 ? "0\(digits)" : digits
        }.joined(separator: ":")
    }
}
