import BlockStorage
import CSupport
import Platform

/// Where the kernel tells of its devices; tests give a tree of their own.
struct KernelTree: Sendable {
    /// Before "/sys".
    var root = ""
    /// "major:minor" of a node's block device, symbolic links followed; nil where it is no node of one.
    var deviceNumber: @Sendable (_ node: String) -> String? = KernelTree.deviceNumber(ofNode:)
    /// "major:minor" of what lies beneath a loop device; nil where that is a file, or nothing.
    var loopBacking: @Sendable (_ node: String) -> String? = KernelTree.loopBacking(ofNode:)

    static let machine = KernelTree()
    /// Without opening a device: that of one whose partition table is being read waits. A loop device is known by the name of
    /// what is beneath it then.
    static let unopened = KernelTree(loopBacking: { _ in nil })

    var blockDevices: [String] { names("/sys/class/block") }

    /// The names in a directory, without those that begin with a dot.
    func names(_ directory: String) -> [String] {
        ProcessFiles.names(in: root + directory).filter { !$0.hasPrefix(".") }.sorted()
    }

    /// The first line of a file; nil where there is none.
    func line(_ path: String) -> String? {
        readSmallFile(root + path, limitBytes: 4096).map { String(decoding: $0.prefix { $0 != 0x0a }, as: UTF8.self) }
    }

    func lines(_ path: String) -> [Substring] {
        String(decoding: readSmallFile(root + path, limitBytes: 4096) ?? [], as: UTF8.self).split(separator: "\n")
    }

    /// "major:minor" of the device that /sys calls by that name.
    func number(_ name: String) -> String? { line("/sys/class/block/\(name)/dev") }

    /// The node that devtmpfs makes of a name in /sys, where "!" stands for "/".
    static func node(_ name: String) -> String { "/dev/" + String(name.map { $0 == "!" ? "/" : $0 }) }

    @Sendable private static func deviceNumber(ofNode path: String) -> String? {
        var major: UInt32 = 0
        var minor: UInt32 = 0
        return cs_block_device_number(path, &major, &minor) == 1 ? "\(major):\(minor)" : nil
    }

    @Sendable private static func loopBacking(ofNode path: String) -> String? {
        var major: UInt32 = 0
        var minor: UInt32 = 0
        return cs_loop_backing_number(path, &major, &minor) == 1 ? "\(major):\(minor)" : nil
    }
}
