import Glibc
import Testing

@testable import DeviceServer

@Suite struct MountTableTests {
    private let shared = """
        22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
        23 22 0:21 / /proc rw,nosuid shared:14 - proc proc rw
        40 22 259:3 / /mnt/a\\040b\\134c rw,relatime shared:90 master:3 - ext4 /dev/disk/by-uuid/12 rw
        41 22 0:50 / /srv rw shared:91 - btrfs /dev/ublkb0p1 rw
        42 22 259:9 / /other rw shared:92 - ext4 /dev/ublkb01 rw
        43 22 259:3 /dir /covered rw shared:93 - ext4 /dev/ublkb0 rw
        44 43 8:17 / /covered rw shared:94 - ext4 /dev/sdb1 rw
        """

    @Test func fields() throws {
        let mount = try #require(MountTable(shared).mounts.first { $0.id == 40 })
        #expect(mount.parentID == 22 && mount.device == "259:3" && mount.mountPoint == "/mnt/a b\\c")
        #expect(mount.isShared && mount.fileSystem == "ext4" && mount.source == "/dev/disk/by-uuid/12")
        #expect(MountTable("1 2 3\n\nnonsense - x").mounts.isEmpty)
    }

    /// By its number, its partition's name, and not one that is another disk's or lies beneath another mount.
    @Test func mountsOfADisk() {
        let points = MountTable(shared).mountPoints(ofDevices: ["259:3"], named: ["ublkb0", "ublkb0p1"]) { _ in nil }
        #expect(points == ["/mnt/a b\\c", "/srv"])
    }

    @Test("files that another machine or a process answers for are known by their path")
    func remoteFiles() {
        let table = MountTable(
            """
            22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
            23 22 0:60 / /net rw shared:2 - nfs4 server:/ rw
            24 22 0:61 / /home/a/remote rw shared:3 - fuse.sshfs server: rw
            """)
        for path in ["/net", "/net/file", "/home/a/remote/x"] { #expect(table.isRemote(path)) }
        for path in ["/", "/network/file", "/home/a/remotes", "/home/a"] { #expect(!table.isRemote(path)) }
    }

    @Test func unmountsAreToldOfWhereEveryParentIsShared() {
        #expect(MountTable(shared).tellsOfUnmounts)
        #expect(!MountTable("").tellsOfUnmounts)
        // A container's root.
        #expect(!MountTable("22 1 8:1 / / rw master:1 - overlay overlay rw").tellsOfUnmounts)
        let onPrivate = shared + "\n50 22 0:9 / /private rw - tmpfs tmpfs rw\n51 50 8:33 / /private/disk rw - ext4 /dev/sdc1 rw"
        #expect(!MountTable(onPrivate).tellsOfUnmounts)
        // snapd keeps its handles of namespaces on a private mount.
        let snapd = shared + "\n50 22 0:9 / /run/snapd/ns rw - tmpfs tmpfs rw\n51 50 0:4 / /run/snapd/ns/a.mnt rw - nsfs nsfs rw"
        #expect(MountTable(snapd).tellsOfUnmounts)
    }

    /// Of a server's namespace that was made of one that a service manager has made.
    @Test("mounts that would stay when others have unmounted them, but what the process has open and what only it has")
    func unheardMounts() {
        let machine = MountTable(
            """
            22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
            23 22 8:1 /priv /private rw - ext4 /dev/sda1 rw
            24 23 8:33 / /private/disk rw - ext4 /dev/sdc1 rw
            25 23 8:49 / /private/images rw - ext4 /dev/sdd1 rw
            26 25 8:65 / /private/images/more rw - ext4 /dev/sde1 rw
            27 22 0:21 / /proc rw shared:14 - proc proc rw
            """)
        let own = """
            122 1 8:1 / / rw master:1 - ext4 /dev/sda1 rw
            123 122 8:1 /priv /private rw - ext4 /dev/sda1 rw
            124 123 8:33 / /private/disk rw - ext4 /dev/sdc1 rw
            125 123 8:49 / /private/images rw - ext4 /dev/sdd1 rw
            126 125 8:65 / /private/images/more rw - ext4 /dev/sde1 rw
            127 122 0:60 / /proc rw - proc proc rw
            128 127 0:60 /sys /proc/sys ro - proc proc rw
            129 122 8:97 / /later rw master:9 - ext4 /dev/sdf1 rw
            """
        let table = MountTable(own)
        #expect(table.unheardMountPoints(machine, besides: [122, 125]) == ["/private/disk", "/private/images/more"])
        #expect(table.unheardMountPoints(machine, besides: [126]) == ["/private/disk"])
        #expect(table.unheardMountPoints(MountTable(""), besides: []) == [])
        // A container's, which follows nobody.
        let container = MountTable(own.replacing("master:1", with: "shared:1"))
        #expect(table.followsOthers && !container.followsOthers && !MountTable("").followsOthers)
        #expect(container.unheardMountPoints(machine, besides: []) == [])
    }

    @Test func mountOfAnOpenFile() throws {
        let descriptor = open("/proc/self/stat", O_RDONLY | O_CLOEXEC)
        defer { close(descriptor) }
        let id = try #require(MountTable.mountID(ofOpenFile: descriptor))
        #expect(MountTable.current.mount(id: id)?.mountPoint == "/proc" && MountTable.ofOpenFiles.contains(id))
        #expect(MountTable.mountID(ofOpenFile: -1) == nil)
    }
}

@Suite struct ServerMemoryTests {
    @Test func rollup() {
        let text = """
            55d2d5a0f000-7ffd8a1f0000 ---p 00000000 00:00 0                          [rollup]
            Rss:               72104 kB
            Pss:               71000 kB
            Locked:            65536 kB
            """
        #expect(ServerMemory(text)?.residentBytes == 72104 << 10)
        #expect(ServerMemory(text)?.lockedBytes == 64 << 20)
        #expect(ServerMemory("Rss: 1 kB") == nil)
        #expect(ServerMemory(process: getpid()) != nil)
        #expect(ServerMemory(process: .max) == nil)
    }
}

@Suite struct ServerConfigurationTests {
    /// Whatever the number of queues, up to the usual depth the buffers are within their budget.
    @Test("I/O size", arguments: [(1, 64, 512), (1, 16, 512), (1, 256, 128), (1, 4096, 64)])
    func ioSize(_ queues: Int, _ depth: Int, _ kibibytes: Int) {
        var configuration = ServerConfiguration(imagePath: "image")
        configuration.queues = queues
        configuration.queueDepth = depth
        #expect(configuration.maxIOSizeBytes == kibibytes << 10)
        if depth <= 512 { #expect(queues * depth * configuration.maxIOSizeBytes <= 32 << 20) }
    }

    @Test func usualQueues() {
        #expect((1...4).contains(ServerConfiguration.defaultQueues))
    }
}
