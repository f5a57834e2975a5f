import Foundation
import TestSupport
import Testing

/// iotest 116: headers that cannot be right. Both programs refuse them, and neither changes the file.
@Suite struct HeaderTests {
    /// What is wrong with the header.
    struct Damage: Sendable, CustomTestStringConvertible {
        var name: String
        /// Changes the bytes of a sound image with one cluster of data.
        var change: @Sendable (inout [UInt8], Geometry) -> Void
        /// Opens in QEMU all the same.
        var qemuOpens = false

        var testDescription: String { name }
    }

    private static func set(_ bytes: inout [UInt8], at offset: Int, _ value: UInt64, _ byteCount: Int) {
        for index in 0..<byteCount { bytes[offset + index] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(index))) }
    }

    static let damages: [Damage] = [
        Damage(name: "an empty file") { bytes, _ in bytes = [] },
        Damage(name: "a file that ends in the header") { bytes, _ in bytes.removeLast(bytes.count - 40) },
        Damage(name: "a file that ends behind the header") { bytes, _ in bytes.removeLast(bytes.count - 64) },
        Damage(name: "a file that ends in the L1 table") { bytes, geometry in
            bytes.removeLast(bytes.count - Int(geometry.clusterSizeBytes) - 4096)
        },
        Damage(name: "another magic number") { bytes, _ in bytes[0] = 0x52 },
        Damage(name: "clusters of 0 bytes") { bytes, _ in set(&bytes, at: 4, 0, 4) },
        Damage(name: "clusters of 2 KiB") { bytes, _ in set(&bytes, at: 4, 2048, 4) },
        Damage(name: "clusters that are no power of two") { bytes, _ in set(&bytes, at: 4, 65535, 4) },
        Damage(name: "clusters of 128 MiB") { bytes, _ in set(&bytes, at: 4, 1 << 27, 4) },
        Damage(name: "tables of no cluster") { bytes, _ in set(&bytes, at: 8, 0, 4) },
        Damage(name: "tables of three clusters") { bytes, _ in set(&bytes, at: 8, 3, 4) },
        Damage(name: "tables of 32 clusters") { bytes, _ in set(&bytes, at: 8, 32, 4) },
        Damage(name: "a header of no cluster", change: { bytes, _ in set(&bytes, at: 12, 0, 4) }, qemuOpens: true),
        Damage(name: "a header larger than the file") { bytes, _ in set(&bytes, at: 12, 0xffff_ffff, 4) },
        Damage(name: "a header over the L1 table") { bytes, _ in set(&bytes, at: 12, 2, 4) },
        Damage(name: "features of the future") { bytes, _ in set(&bytes, at: 16, 1 << 40, 8) },
        Damage(name: "an L1 table inside the header") { bytes, _ in set(&bytes, at: 40, 0, 8) },
        Damage(name: "an L1 table between clusters") { bytes, geometry in
            set(&bytes, at: 40, geometry.clusterSizeBytes + 512, 8)
        },
        Damage(name: "an L1 table behind the end of the file") { bytes, _ in set(&bytes, at: 40, 1 << 40, 8) },
        Damage(name: "an L1 table at the end of all numbers") { bytes, geometry in
            set(&bytes, at: 40, 0 &- geometry.clusterSizeBytes, 8)
        },
        Damage(name: "a size of no whole sectors") { bytes, _ in set(&bytes, at: 48, 1_048_577, 8) },
        Damage(name: "a size that no table could map") { bytes, geometry in
            set(&bytes, at: 48, UInt64.max - 511, 8)
        },
        Damage(name: "a backing file's name outside the header") { bytes, _ in
            set(&bytes, at: 16, 1, 8)
            set(&bytes, at: 56, 0xffff_ff00, 4)
            set(&bytes, at: 60, 0x200, 4)
        },
    ]

    @Test("iotest 116", arguments: Geometry.all, damages)
    func malformed(_ geometry: Geometry, damage: Damage) throws {
        let bench = try Workbench()
        try bench.create("image", mib, geometry, by: .ours)
        var bytes = try readFile(bench.path("image"))
        damage.change(&bytes, geometry)
        try writeFile(bench.path("image"), bytes)
        for command in [["info", "image"], ["io", "image", "read 0 4k"], ["io", "image", "write 0 4k"]] {
            expectRefusal(try bench.ours(command), 2, naming: "image")
        }
        expectRefusal(try bench.ours("check", "-r", "all", "image"), 1, naming: "image")
        #expect(try readFile(bench.path("image")) == bytes)
        let theirs = try bench.attempt(["read 0 4k"], on: "image", by: .qemu)
        #expect(theirs.status == (damage.qemuOpens ? 0 : 1), "\(theirs.output)\(theirs.errors)")
    }
}
