import Testing

@testable import DeviceServer

@Suite struct StackedDevicesTests {
    /// Image of 0 on /srv; of 2 on ublkb0's partition, mounted at /mnt; of 1 on a loop device over 2, mounted below /mnt; of 3
    /// over a base that is 1's disk itself.
    @Test("a device is above those on whose disks its files lie")
    func heights() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0")
        try kernel.add("ublkb0p1", "259:1", partitionOf: "ublkb0")
        try kernel.add("ublkb1", "259:2")
        try kernel.add("ublkb2", "259:3")
        try kernel.add("ublkb3", "259:4")
        try kernel.addLoop("loop0", "7:0", file: "/dev/ublkb2", beneath: "259:3")
        let mounts = MountTable(
            """
            22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
            40 22 259:1 / /mnt rw shared:90 - ext4 /dev/ublkb0p1 rw
            41 40 0:50 / /mnt/deeper rw shared:91 - btrfs /dev/loop0 rw
            """)
        let files: [UInt32: [String]] = [
            0: ["/srv/a.qed"], 1: ["/mnt/deeper/b.qed"], 2: ["/mnt/c.qed"], 3: ["/srv/d.qed", "/dev/ublkb1"],
            9: ["/mntother/e.qed"],
        ]
        let tree = kernel.tree
        var stacks: [UInt32: DiskStack] = [:]
        for id: UInt32 in [0, 1, 2, 3, 9] { stacks[id] = DiskStack(ofDiskAt: "/dev/ublkb\(id)", tree) }
        func heights(_ ids: [UInt32]) -> [UInt32: Int] {
            StackedDevices.heights(of: ids, files: files, stacks: stacks, mounts: mounts, tree.deviceNumber)
        }
        #expect(heights([0, 1, 2, 3, 9]) == [0: 0, 9: 0, 2: 1, 1: 2, 3: 3])
        #expect(heights([9, 0]) == [0: 0, 9: 0])
        #expect(heights([0, 1]) == [0: 0, 1: 0])
        #expect(heights([]) == [:])
    }
}
