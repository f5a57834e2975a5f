import Foundation
import Glibc
import SystemPackage
import TestSupport
import Testing

@testable import DeviceServer

/// No machine has a disk of these numbers.
@Suite struct DeviceLinkTests {
    private let directory: TemporaryDirectory
    private let link: DeviceLink
    private let id: UInt32 = 4_000_000

    init() throws {
        directory = try TemporaryDirectory()
        link = DeviceLink(path: directory.path("link"))
    }

    private var target: String? { try? FileManager.default.destinationOfSymbolicLink(atPath: link.path) }

    private func fault(_ action: () throws(DeviceLinkError) -> Void) -> DeviceLinkError.Fault? {
        do { try action() } catch { return error.fault }
        return nil
    }

    @Test func leadsToTheDiskAndGoesWithIt() throws {
        try link.check()
        try link.make(to: id)
        #expect(target == "/dev/ublkb4000000")
        link.remove(to: id + 1)
        #expect(target != nil)
        link.remove(to: id)
        #expect(directory.names == [])
    }

    @Test func oneThatIsLeftOfADiskThatIsGoneIsReplaced() throws {
        try link.make(to: id)
        try link.check()
        try link.make(to: id + 1)
        #expect(target == "/dev/ublkb4000001")
        link.remove(to: id)
        #expect(target == "/dev/ublkb4000001")
    }

    /// Names that are like a disk's, and a disk that is there.
    @Test(arguments: [
        "/dev/null", "/dev/ublkb4000000p1", "ublkb4000000", "/dev/ublkb04000000", "/nowhere", "4000000", "/dev/ublkc4000000",
    ])
    func othersLinksStay(other: String) throws {
        #expect(symlink(other, link.path) == 0)
        #expect(fault(link.check) == .exists)
        #expect(fault { () throws(DeviceLinkError) in try link.make(to: id) } == .exists)
        link.remove(to: id)
        #expect(target == other)
    }

    @Test func filesAndDirectoriesStay() throws {
        try directory.write("content", to: "link")
        #expect(fault(link.check) == .exists)
        #expect(fault { () throws(DeviceLinkError) in try link.make(to: id) } == .exists)
        link.remove(to: id)
        #expect(try String(contentsOfFile: link.path, encoding: .utf8) == "content")
        #expect(fault(DeviceLink(path: directory.path).check) == .exists)
    }

    @Test func aDirectoryThatIsMissing() throws {
        #expect(fault(DeviceLink(path: directory.path("none/link")).check) == .cannotMake(.noSuchFileOrDirectory))
        try directory.write("", to: "file")
        #expect(fault(DeviceLink(path: directory.path("file/link")).check) == .cannotMake(.notDirectory))
    }
}
