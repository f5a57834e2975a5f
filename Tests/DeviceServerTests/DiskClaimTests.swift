import Testing

@testable import DeviceServer

@Suite struct DiskClaimTests {
    @Test("a sentence says by what a disk is had, and what to do")
    func sentences() {
        #expect(DiskClaim(mountPoints: ["/mnt"]).description == ", mounted at /mnt; unmount it first")
        #expect(DiskClaim(mountPoints: ["/mnt", "/srv"], isSwap: true).description == ", mounted at /mnt, /srv; unmount it first")
        #expect(
            DiskClaim(mountPoints: ["/1", "/2", "/3", "/4", "/5"]).description
                == ", mounted at /1, /2, /3 and 2 more places; unmount it first")
        #expect(DiskClaim(isSwap: true).description == " as swap; use swapoff first")
        #expect(DiskClaim(holders: ["dm-0", "md1"]).description == " by dm-0, md1; remove that first")
        // In a namespace that this process does not see.
        #expect(DiskClaim().description == "; unmount it first")
    }

    @Test("swap on the disk, not on another whose name is longer or shorter")
    func swap() {
        let head = "Filename\t\t\t\tType\t\tSize\n"
        let disk = DiskDevices(ofDiskAt: "/dev/ublkb1")
        #expect(DiskClaim.isSwap(disk, swaps: head + "/dev/ublkb1 \tpartition\t1048572\n"))
        #expect(DiskClaim.isSwap(disk, swaps: head + "/swap file\n/dev/ublkb1\tpartition\t1048572\n"))
        #expect(!DiskClaim.isSwap(disk, swaps: head + "/dev/ublkb12 partition 8\n/dev/ublkb partition 8\n/dev/ublkb1p1 partition 8\n"))
        #expect(!DiskClaim.isSwap(disk, swaps: ""))
    }
}
