import Glibc
import TestSupport
import Testing

@testable import DeviceServer

@Suite struct DiskClaimTests {
    @Test("a sentence says by what a disk is had, and what to do")
    func sentences() {
        #expect(DiskClaim(mountPoints: ["/mnt"]).description == ", mounted at /mnt; unmount it first")
        #expect(
            DiskClaim(mountPoints: ["/mnt", "/srv"], isSwap: true).description == ", mounted at /mnt, /srv; unmount it first")
        #expect(
            DiskClaim(mountPoints: ["/1", "/2", "/3", "/4", "/5"]).description
                == ", mounted at /1, /2, /3 and 2 more places; unmount it first")
        #expect(DiskClaim(isSwap: true).description == " as swap; use swapoff first")
        #expect(DiskClaim(holders: ["dm-0", "md1"]).description == " by dm-0, md1; remove that first")
        #expect(
            DiskClaim(mountPoints: ["/mnt"], holders: ["loop0"]).description
                == ", mounted at /mnt through loop0; unmount it and remove what is on top of it first")
        #expect(
            DiskClaim(isSwap: true, holders: ["dm-0"]).description
                == " as swap through dm-0; use swapoff and remove what is on top of it first")
        // In a namespace that this process does not see.
        #expect(DiskClaim().description == "; unmount it first")
    }

    @Test("swap on the disk, not on another whose name is longer or shorter")
    func swap() {
        let head = "Filename\t\t\t\tType\t\tSize\n"
        let disk = ["ublkb1"]
        #expect(DiskClaim.isSwap(disk, swaps: head + "/dev/ublkb1 \tpartition\t1048572\n"))
        #expect(DiskClaim.isSwap(disk, swaps: head + "/swap file\n/dev/ublkb1\tpartition\t1048572\n"))
        #expect(
            !DiskClaim.isSwap(disk, swaps: head + "/dev/ublkb12 partition 8\n/dev/ublkb partition 8\n/dev/ublkb1p1 partition 8\n")
        )
        #expect(!DiskClaim.isSwap(disk, swaps: ""))
    }

    private func claim(_ kernel: FakeKernel, mounts: String = "", swaps: String = "") -> DiskClaim {
        let tree = kernel.tree
        return DiskClaim(DiskStack(ofDiskAt: "/dev/ublkb0", tree), mounts: MountTable(mounts), swaps: swaps, tree)
    }

    @Test("what is on top of a partition counts, however far up, and another disk's does not")
    func stacks() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0")
        #expect(claim(kernel).isEmpty)
        try kernel.add("ublkb0p1", "259:1", partitionOf: "ublkb0", holders: ["dm-0"])
        try kernel.add("dm-0", "253:0", holders: ["dm-1"])
        // dm-1 also lies on the disk next to it, and comes after both.
        try kernel.add("ublkb0p2", "259:2", partitionOf: "ublkb0", holders: ["dm-1"])
        try kernel.add("dm-1", "253:1")
        try kernel.addLoop("loop0", "7:0", file: "/dev/mapper/top", beneath: "253:1")
        try kernel.add("loop0p1", "7:1", partitionOf: "loop0")
        try kernel.add("ublkb1", "259:9", holders: ["dm-2"])
        try kernel.add("dm-2", "253:2")
        try kernel.addLoop("loop1", "7:2", file: "/srv/file", beneath: nil)
        let stack = DiskStack(ofDiskAt: "/dev/ublkb0", kernel.tree)
        #expect(stack.names == ["ublkb0", "ublkb0p1", "ublkb0p2", "dm-0", "dm-1", "loop0", "loop0p1"])
        #expect(stack.holders == ["dm-0", "dm-1"])

        #expect(claim(kernel) == DiskClaim(holders: ["dm-0", "dm-1"]))
        let mounts = """
            22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
            40 22 7:1 / /a rw shared:90 - ext4 /dev/loop0p1 rw
            41 22 0:50 / /b rw shared:91 - btrfs /dev/mapper/top rw
            42 22 253:2 / /other rw shared:92 - ext4 /dev/mapper/other rw
            """
        kernel.link("/dev/mapper/top", "253:1")
        kernel.link("/dev/mapper/other", "253:2")
        #expect(claim(kernel, mounts: mounts).mountPoints == ["/a", "/b"])
        #expect(claim(kernel, swaps: "Filename\n/dev/dm-1 partition 8\n").isSwap)
        #expect(!claim(kernel, swaps: "Filename\n/dev/dm-2 partition 8\n").isSwap)
    }

    @Test("a loop device is known by the number of what is beneath it, not by a name")
    func loops() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0")
        // A bind mount, or a node of another name.
        try kernel.addLoop("loop3", "7:3", file: "/srv/disk", beneath: "259:0")
        #expect(claim(kernel) == DiskClaim(holders: ["loop3"]))
        let other = try FakeKernel()
        try other.add("ublkb0", "259:0")
        // A file of that name, in a directory that was a device's.
        try other.addLoop("loop3", "7:3", file: "/dev/ublkb0x", beneath: nil)
        #expect(claim(other).isEmpty)
        // Where there is no node of the loop device to ask: by the name.
        try other.addLoop("loop4", "7:4", file: "/dev/ublkb0", beneath: nil)
        #expect(claim(other) == DiskClaim(holders: ["loop4"]))
    }

    @Test("a circle, which no kernel makes, has an end")
    func circle() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0", holders: ["dm-0"])
        try kernel.add("dm-0", "253:0", holders: ["dm-0"])
        #expect(Set(DiskStack(ofDiskAt: "/dev/ublkb0", kernel.tree).names) == ["ublkb0", "dm-0"])
    }

    @Test("what the kernel itself serves to other machines is in use")
    func exports() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0")
        try kernel.add("ublkb0p1", "259:1", partitionOf: "ublkb0")
        try kernel.add("ublkb1", "259:9")
        let namespaces = "/sys/kernel/config/nvmet/subsystems/disks/namespaces"
        try kernel.write("/dev/ublkb1\n", "\(namespaces)/1/device_path")
        try kernel.write("1\n", "\(namespaces)/1/enable")
        try kernel.write("/dev/ublkb0p1\n", "\(namespaces)/2/device_path")
        try kernel.write("0\n", "\(namespaces)/2/enable")
        #expect(claim(kernel).isEmpty)
        try kernel.write("1\n", "\(namespaces)/2/enable")
        #expect(claim(kernel).description == " by the NVMe target's subsystem disks; remove that first")
        let core = "/sys/kernel/config/target/core/iblock_0/store"
        try kernel.write("/dev/ublkb0\n", "\(core)/udev_path")
        try kernel.write("1\n", "\(core)/enable")
        #expect(claim(kernel).exporters == ["the NVMe target's subsystem disks", "the SCSI target's storage object store"])
    }

    @Test("a process that has a device open is found by the device's number, whatever it calls it")
    func openFiles() throws {
        let directory = try TemporaryDirectory()
        let node = directory.path("disk")
        // Needs the right to make nodes; the number is that of no device.
        guard mknod(node, S_IFBLK | 0o600, makedev(7, 250)) == 0 else { return }
        // O_PATH.
        let descriptor = open(node, 0o10000000 | O_CLOEXEC)
        defer { close(descriptor) }
        #expect(DiskUse.processes(using: ["7:250"], among: [getpid()]).map(\.id) == [getpid()])
        #expect(DiskUse.processes(using: ["7:251"], among: [getpid()]).isEmpty)
    }

    private func makedev(_ major: UInt, _ minor: UInt) -> dev_t { major << 8 | minor }
}
