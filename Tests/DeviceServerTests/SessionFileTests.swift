import BlockStorage
import Glibc
import Platform
import QEDEngine
import TestSupport
import Testing

@testable import DeviceServer

/// Logs that lie on a disk: those of another boot go, that of this one stays.
struct SessionFileTests {
    private let directory: TemporaryDirectory
    private let image = FileIdentity(high: 1, low: 2)

    init() throws { directory = try TemporaryDirectory() }

    private var registry: DeviceRegistry { DeviceRegistry(directory: directory.path) }

    /// Leaves the log of an image, as a server of that boot would.
    private func leaveLog(of image: FileIdentity, boot: BootIdentity) throws {
        let file = try SessionFile(image: image, registry: registry)
        _ = MappingLog(
            formatting: file.memory.address, for: MappingLog.Owner(image: image, boot: boot), session: 7)
    }

    @Test func theOwnLogStaysWhateverBootItWasOf() throws {
        let boot: BootIdentity? = BootIdentity.current
        let earlier = BootIdentity(high: 9, low: 9)
        let other = FileIdentity(high: 3, low: 4)
        let name = "image-\(image).log"
        try leaveLog(of: image, boot: try #require(boot))
        try leaveLog(of: other, boot: earlier)
        try directory.write("no log", to: "image-x.log")
        for made in [boot, earlier] {
            let owner = MappingLog.Owner(image: image, boot: try #require(made))
            let file = try SessionFile(image: image, registry: registry)
            _ = MappingLog(formatting: file.memory.address, for: owner, session: 8)
            #expect(file.isNew == false)
            #expect(directory.names.contains(name), "the log is mapped, and nobody would find it")
        }
        // On a disk the earlier boot's are gone by now; on a tmpfs there is nothing to take away.
        let last = try SessionFile(image: image, registry: registry)
        #expect(directory.names.contains(name))
        #expect(directory.names.contains("image-x.log"))
        #expect(last.isNew == (last.warning != nil))
        #expect(directory.names.contains("image-\(other).log") == (last.warning == nil))
    }
}
