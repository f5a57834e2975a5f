import BlockStorage
import DeviceServer
import Foundation
import QEDChain
import QEDEngine
import SystemPackage
import TestSupport
import Testing

@testable import Ublk
@testable import qed_ublk

/// What service managers, and our own supervisor, go by.
@Suite struct SupervisionTests {
    /// A unit is not started again after "not found": that is for files that were named, and not for what the machine lacks for
    /// a moment.
    @Test func whatTheMachineLacksIsTriedAgain() {
        let missing = Errno.noSuchFileOrDirectory
        #expect(ServerError.registry(RegistryError(attempt: "write", path: "/run/x", errno: missing)).exitStatus == .failure)
        #expect(
            ServerError.registry(RegistryError(attempt: "write", path: "/run/x", errno: .permissionDenied)).exitStatus
                == .noPermission)
        #expect(ServerError.characterDevice(UblkOpenError(path: "/dev/ublkc0", errno: missing)).exitStatus == .failure)
        #expect(ServerError.chain(.image(.file(.notFound(path: "x")), backingOf: nil)).exitStatus == .notFound)
    }

    /// What the unit does not try again is what does not mend itself; that a device was left is not among it.
    @Test func unitKnowsTheStatuses() throws {
        let unit = try String(
            contentsOfFile: #filePath.split(separator: "/").dropLast(3).reduce("") { $0 + "/" + $1 }
                + "/packaging/qed-ublk@.service", encoding: .utf8)
        let line = unit.split(separator: "\n").first { $0.hasPrefix("RestartPreventExitStatus=") }
        let statuses = try #require(line).dropFirst("RestartPreventExitStatus=".count).split(separator: " ").compactMap {
            Int32($0)
        }
        #expect(statuses.compactMap(ExitStatus.init) == [.unusableImage, .notFound, .noPermission, .noUblk, .usage])
        #expect(ExitStatus.left.rawValue == 7)
    }
}
