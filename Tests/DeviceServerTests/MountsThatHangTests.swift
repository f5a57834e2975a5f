import Testing

@testable import DeviceServer

/// Who is stopped by a device without a server, by the mounts and devices of a test's own.
@Suite struct MountsThatHangTests {
    /// The disk with a partition, a volume on that, and a loop device on a file that lies on the volume; beside it, a disk whose
    /// image lies on the disk.
    private let kernel: FakeKernel
    private let machine = """
        22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
        40 22 259:0 / /mnt rw shared:90 - ext4 /dev/ublkb0 rw
        41 22 253:0 / /srv/a\\040b rw shared:91 - xfs /dev/mapper/volume rw
        42 41 7:0 / /srv/a\\040b/inner rw shared:92 - ext4 /dev/loop0 rw
        43 22 259:7 / /other rw shared:93 - ext4 /dev/ublkb1 rw
        44 22 259:9 / /sound rw shared:94 - ext4 /dev/ublkb2 rw
        """

    init() throws {
        kernel = try FakeKernel()
        try kernel.add("ublkb0", "259:0")
        try kernel.add("ublkb0p1", "259:1", partitionOf: "ublkb0", holders: ["dm-0"])
        try kernel.add("dm-0", "253:0")
        kernel.link("/dev/mapper/volume", "253:0")
        try kernel.addLoop("loop0", "7:0", file: "/srv/a b/disk (deleted)", beneath: nil)
        try kernel.addLoop("loop1", "7:1", file: "/sound/disk", beneath: nil)
        try kernel.add("ublkb1", "259:7")
        try kernel.add("ublkb2", "259:9")
    }

    private func findings(
        _ stops: [(UInt32, MountsThatHang.Stop.Effect)], elsewhere: String? = nil, swaps: String = "",
        images: [UInt32: String] = [:]
    ) -> [Finding] {
        let namespaces =
            [MountsThatHang.Namespace(table: MountTable(machine), process: nil)]
            + (elsewhere.map { [MountsThatHang.Namespace(table: MountTable($0), process: .max)] } ?? [])
        return MountsThatHang(
            namespaces: namespaces, devices: images.sorted { $0.key < $1.key }.map { .init(id: $0.key, files: [$0.value]) },
            stops: stops.map { .init(id: $0.0, effect: $0.1) }, swaps: swaps, kernel.tree
        ).findings
    }

    @Test("every mount on the disk is named, however far up, and no other")
    func mounts() {
        let findings = findings([(0, .waitsForServer)])
        #expect(
            findings.map(\.sentence) == [
                "what is mounted at /mnt, /srv/a b (on /dev/dm-0), /srv/a b/inner (on /dev/loop0) hangs, since /dev/ublkb0 waits "
                    + "for a server"
            ])
        #expect(findings.map(\.remedy) == ["qed-ublk recover 0"] && findings.allSatisfy { $0.verdict == .warning })
        #expect(self.findings([]).isEmpty)
    }

    @Test("what is mounted in another namespace alone is named with a process that sees it")
    func namespaces() {
        let elsewhere = machine + "\n50 22 259:9 / /inside rw - ext4 /dev/ublkb2 rw"
        let findings = findings([(2, .waitsForServer)], elsewhere: elsewhere)
        #expect(findings.count == 1)
        #expect(findings.first?.sentence.contains("at /sound, /inside (as , process 2147483647, sees it) hangs") == true)
    }

    @Test("swap: devices on the disk, and files")
    func swap() {
        let swaps = """
            Filename Type Size Used Priority
            /dev/mapper/volume                      partition       1048572 0 -2
            /dev/ublkb2 partition 1048572 0 -3
            /mnt/swap\tfile 8 0 -4
            """
        let findings = findings([(0, .fails)], swaps: swaps)
        #expect(findings.map(\.subject) == ["mounts", "swap"])
        #expect(findings.last?.sentence.contains("swapped out to /dev/mapper/volume, /mnt/swap is out of reach") == true)
        #expect(findings.last?.remedy == "swapoff; then qed-ublk del 0")
        #expect(findings.first?.sentence.contains("fails, since /dev/ublkb0") == true)
    }

    @Test("an image on the disk stops its own device, and what is mounted from that")
    func images() {
        let images: [UInt32: String] = [1: "/srv/a b/inner/image.qed", 2: "/sound/image.qed", 0: "/image.qed"]
        let findings = findings([(0, .waitsForServer)], images: images)
        #expect(findings.map(\.subject) == ["mounts", "images"])
        #expect(findings.first?.sentence.contains("/other (on /dev/ublkb1)") == true)
        #expect(findings.last?.sentence == "the image of /dev/ublkb1 lies on /dev/ublkb0, which waits for a server")
        #expect(findings.last?.remedy == "qed-ublk recover 0")
        // Both wait: what lies on one is said of that one, and both are recovered at once.
        let both = self.findings([(0, .waitsForServer), (1, .waitsForServer)], images: images)
        #expect(both.map(\.subject) == ["mounts", "images", "mounts"])
        #expect(both[0].sentence.contains("/other") == false && both[2].sentence.contains("at /other hangs"))
        #expect(both[1].remedy == "qed-ublk recover --all")
    }

    @Test("a device that nobody knows can only be removed")
    func orphan() {
        #expect(findings([(1, .waitsForNobody)]).first?.remedy?.contains("qed-ublk del --force 1") == true)
    }

    @Test("of several devices of a btrfs one alone is named by its mount")
    func btrfs() throws {
        try kernel.add("sdb", "8:16")
        for device in ["sdb", "ublkb3"] { try kernel.write("", "/sys/fs/btrfs/1234/devices/\(device)/size") }
        try kernel.add("ublkb3", "259:20")
        let mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n60 22 0:50 / /pool rw - btrfs /dev/sdb rw"
        let findings = MountsThatHang(
            namespaces: [.init(table: MountTable(mounts), process: nil)], devices: [],
            stops: [.init(id: 3, effect: .waitsForServer)], swaps: "", kernel.tree
        ).findings
        #expect(findings.first?.sentence == "what is mounted at /pool hangs, since /dev/ublkb3 waits for a server")
    }

    @Test("of very many places some are named")
    func many() {
        let lines = (0..<25).map { "\(100 + $0) 22 259:9 / /p\($0) rw - ext4 /dev/ublkb2 rw" }.joined(separator: "\n")
        let findings = findings([(2, .waitsForServer)], elsewhere: lines)
        #expect(findings.first?.sentence.contains("and 16 more places hangs") == true)
    }
}
