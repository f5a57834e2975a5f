import Foundation
import TestSupport
import Testing

/// What `info` says of the blocks that an image's device would have.
@Suite struct BlockSizeTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func qedUblk(_ arguments: String...) throws -> CommandResult {
        try run([try QedUblkProgram.path()] + arguments, in: directory.path)
    }

    /// A disk with these signatures of partition tables, in an image of clusters of that size.
    private func makeDisk(_ name: String, signaturesAt offsets: [Int], sizeBytes: Int = 1 << 20, cluster: String = "64K") throws {
        var bytes = [UInt8](repeating: 0, count: sizeBytes)
        for offset in offsets { bytes.replaceSubrange(offset..<offset + 8, with: Array("EFI PART".utf8)) }
        try writeFile(directory.path("\(name).raw"), bytes)
        try require(
            ["qemu-img", "convert", "-O", "qed", "-o", "cluster_size=\(cluster)", "\(name).raw", "\(name).qed"],
            in: directory.path)
    }

    private func blocks(of image: String, _ options: String...) throws -> (
        size: Int?, reason: String?
    ) {
        let result = try run([try QedUblkProgram.path(), "info", "--json"] + options + [image], in: directory.path)
        #expect(result.status == 0, "\(result.errors)")
        let parsed: Any = try JSONSerialization.jsonObject(with: Data(result.output.utf8))
        let object: [String: Any]? = (parsed as? [String: Any]) ?? (parsed as? [[String: Any]])?.first
        #expect(object?["direct-io"] is Bool && object?["direct-io-reason"] is String)
        return (object?["block-size"] as? Int, object?["block-size-reason"] as? String)
    }

    @Test("blocks that a partition table was made for", arguments: ["4K", "64K"])
    func partitionTable(cluster: String) throws {
        for (offsets, expected) in [([], 512), ([512], 512), ([4096], 4096), ([512, 4096], 512), ([8192], 512)] {
            try makeDisk("disk", signaturesAt: offsets, cluster: cluster)
            #expect(try blocks(of: "disk.qed").size == expected, "\(offsets)")
        }
        try makeDisk("odd", signaturesAt: [4096], sizeBytes: (1 << 20) + 512, cluster: cluster)
        let odd = try blocks(of: "odd.qed")
        #expect(odd.size == 512 && odd.reason?.contains("its size is no multiple of that") == true)
    }

    @Test func partitionTableOfABackingFile() throws {
        try makeDisk("base", signaturesAt: [4096])
        for (format, base) in [("raw", "base.raw"), ("qed", "base.qed")] {
            let top = "over-\(format).qed"
            #expect(try qedUblk("create", "--backing", base, "--backing-format", format, top).status == 0)
            let alone = try blocks(of: top)
            #expect(alone.size == 512 && alone.reason?.contains("was not read") == true)
            #expect(try blocks(of: top, "--backing-chain").size == 4096)
            // What the overlay itself has counts.
            try require(["qemu-io", "-f", "qed", "-c", "write -z 0 64k", top], in: directory.path)
            #expect(try blocks(of: top).size == 512)
            #expect(try blocks(of: top, "--backing-chain").reason == "the usual size")
        }
    }

    @Test func partitionTableBehindADamagedEntry() throws {
        var image = ImageBuilder()
        image.l1(0, 0xdead_0000_0000_0000)
        try image.write(to: directory.path("damaged.qed"))
        let damaged = try blocks(of: "damaged.qed")
        #expect(damaged.size == 512 && damaged.reason?.contains("was not read") == true)
    }
}
