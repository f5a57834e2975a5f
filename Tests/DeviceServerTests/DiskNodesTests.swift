import Glibc
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import DeviceServer

/// With a tree of files in place of the kernel's. What kernels do is in the scenarios.
struct DiskNodesTests {
    private let directory: TemporaryDirectory
    private var disk: String { directory.path("dev/ublkb0") }

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["dev", "sys", "sys/class", "sys/class/block", "sys/class/block/ublkb0"] { make(name) }
    }

    private func make(_ name: String) { #expect(mkdir(directory.path(name), 0o755) == 0) }

    private func addPartition(_ number: Int, withNode: Bool) throws {
        if withNode { try directory.write("", to: "dev/ublkb0p\(number)") }
        make("sys/class/block/ublkb0/ublkb0p\(number)")
    }

    private func nodes(_ tableReader: DiskNodes.TableReader = .kernel, attempts: Int = 3000) -> DiskNodes {
        DiskNodes(
            ofDiskAt: disk, tableReader: tableReader, KernelTree(root: directory.path), attempts: attempts)
    }

    @Test(arguments: [DiskNodes.TableReader.kernel, .server, .nobody])
    func whatIsThereIsNotWaitedFor(tableReader: DiskNodes.TableReader) throws {
        try directory.write("", to: "dev/ublkb0")
        make("sys/class/block/ublkb0/queue")
        for number in 1...3 { try addPartition(number, withNode: true) }
        let nodes = nodes(tableReader)
        #expect(nodes.openDisk() == 0)
        #expect(nodes.waitForPartitions() == [])
    }

    @Test func nodesThatDoNotComeAreNamed() throws {
        try directory.write("", to: "dev/ublkb0")
        try addPartition(1, withNode: true)
        try addPartition(2, withNode: false)
        #expect(nodes(attempts: 4).openDisk() == 0)
        #expect(nodes(attempts: 4).waitForPartitions() == ["/dev/ublkb0p2"])
    }

    /// The kernel begins some time after START_DEV.
    @Test func theKernelIsWaitedFor() throws {
        try directory.write("0\n", to: "sys/class/block/ublkb0/partscan")
        let kernel = try BackgroundThread { [self] in
            usleep(100_000)
            _ = try? directory.write("", to: "dev/ublkb0")
            usleep(100_000)
            try? addPartition(1, withNode: false)
            _ = try? directory.write("1\n", to: "sys/class/block/ublkb0/partscan")
            usleep(100_000)
            _ = try? directory.write("", to: "dev/ublkb0p1")
        }
        #expect(nodes().openDisk() == 0)
        #expect(nodes().waitForPartitions() == [])
        #expect(access(directory.path("dev/ublkb0p1"), F_OK) == 0)
        kernel.join()
    }

    @Test func aDiskWithoutANode() {
        #expect(nodes(attempts: 4).openDisk() == ENOENT)
    }
}
