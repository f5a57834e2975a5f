import Glibc
import TestSupport

@testable import DeviceServer

/// A /sys of a test's own: block devices with numbers, and what lies on what.
final class FakeKernel {
    private let directory: TemporaryDirectory
    private var numbers: [String: String] = [:]
    private var loops: [String: String] = [:]

    init() throws { directory = try TemporaryDirectory() }

    var tree: KernelTree {
        let numbers = numbers
        let loops = loops
        return KernelTree(
            root: directory.path, deviceNumber: { node in numbers[node] }, loopBacking: { node in loops[node] })
    }

    /// A device with a node; a partition's is made with its disk's name in front.
    func add(_ name: String, _ number: String, partitionOf disk: String? = nil, holders: [String] = []) throws {
        try write(number + "\n", "/sys/class/block/\(name)/dev")
        if let disk { try write(number + "\n", "/sys/class/block/\(disk)/\(name)/dev") }
        for holder in holders { try write("", "/sys/class/block/\(name)/holders/\(holder)") }
        numbers[KernelTree.node(name)] = number
    }

    func addLoop(_ name: String, _ number: String, file: String, beneath: String?) throws {
        try add(name, number)
        try write(file + "\n", "/sys/class/block/\(name)/loop/backing_file")
        loops[KernelTree.node(name)] = beneath
    }

    /// Another name for a device.
    func link(_ node: String, _ number: String) { numbers[node] = number }

    func write(_ content: String, _ path: String) throws {
        let names = path.split(separator: "/")
        for count in 1..<names.count { mkdir(directory.path(names.prefix(count).joined(separator: "/")), 0o755) }
        try directory.write(content, to: names.joined(separator: "/"))
    }
}
