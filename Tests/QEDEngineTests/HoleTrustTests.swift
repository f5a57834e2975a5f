import BlockStorage
import Foundation
import Testing

@Suite("Which file systems are believed where holes are")
struct HoleTrustTests {
    @Test("tmpfs is, what the kernel invents is not")
    func fileSystems() throws {
        let path = "/dev/shm/qed-ublk-test-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: path) }
        try Data(count: 512).write(to: URL(fileURLWithPath: path))
        let known = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
        #expect(known.tellsHolesTruly)
        let unknown = try ImageFile(path: "/proc/version", access: .readOnly, caching: .buffered, lock: nil)
        #expect(!unknown.tellsHolesTruly)
    }
}
