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

    private func nodes(readsPartitions: Bool = false, attempts: Int = 3000) -> DiskNodes {
        DiskNodes(
            ofDiskAt: disk, readsPartitions: readsPartitions, KernelTree(root: directory.path), attempts: attempts)
    }

    @Test(arguments: [false, true])
    func whatIsThereIsNotWaitedFor(readsPartitions: Bool) throws {
        try directory.write("", to: "dev/ublkb0")
        make("sys/class/block/ublkb0/queue")
        for number in 1...3 { try addPartition(number, withNode: true) }
        #expect(try nodes(readsPartitions: readsPartitions).wait(timeout: .seconds(60)) == [])
    }

    @Test func nodesThatDoNotComeAreNamed() throws {
        try directory.write("", to: "dev/ublkb0")
        try addPartition(1, withNode: true)
        try addPartition(2, withNode: false)
        #expect(try nodes(attempts: 4).wait(timeout: .seconds(60)) == ["/dev/ublkb0p2"])
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
        let missing = try nodes().wait(timeout: .seconds(120))
        #expect(missing == [])
        #expect(access(directory.path("dev/ublkb0p1"), F_OK) == 0)
        kernel.join()
    }

    @Test func aDiskWithoutANode() throws {
        #expect(throws: Errno.noSuchFileOrDirectory) { try nodes(attempts: 4).wait(timeout: .seconds(60)) }
    }

    /// Opening it waits for ever, as for somebody who reads the partition table from a disk that does not answer.
    @Test func aDiskThatDoesNotAnswer() throws {
        #expect(mkfifo(disk, 0o600) == 0)
        #expect(throws: Errno.timedOut) { try nodes().wait(timeout: .milliseconds(50)) }
        // Lets the thread end.
        let writer = open(disk, O_RDWR | O_CLOEXEC)
        #expect(writer >= 0)
        usleep(200_000)
        close(writer)
    }
}
