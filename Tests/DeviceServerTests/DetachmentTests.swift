import Glibc
import Testing

@testable import DeviceServer

/// What a server keeps of its caller: nothing that would keep a file system busy, or wait for the server's own disk.
@Suite struct DetachmentTests {
    /// The program of this test and its root directory lie somewhere; nothing lies on a disk that nobody has.
    @Test func whatLiesOnTheDiskIsFound() throws {
        #expect(OwnDiskHolds.first(onDevices: ["1048575:1048575"]) == nil)
        #expect(OwnDiskHolds.first(onDevices: []) == nil)
        let mounts = MountTable.current.mounts
        #expect(OwnDiskHolds.first(onDevices: Set(mounts.map(\.device))) != nil)
        // The later of two mounts covers the earlier.
        let root = try #require(mounts.last { $0.mountPoint == "/" })
        let found = try #require(OwnDiskHolds.first(onDevices: [root.device]))
        #expect(found.hasPrefix("this ") || found.hasPrefix("the server's standard"))
    }
}

@Suite struct MachineShutdownTests {
    @Test(arguments: [("stopping\n", true), ("running\n", false), ("degraded\n", false), ("offline\n", false), ("", false)])
    func answers(answer: String, isUnderWay: Bool) { #expect(MachineShutdown.isStopping(answer) == isUnderWay) }
}
