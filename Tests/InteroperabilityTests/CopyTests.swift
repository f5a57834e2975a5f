import Foundation
import TestSupport
import Testing

/// Copies: into what is there, in pieces, and of damaged images.
@Suite struct CopyTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    @Test("iotest 063: into a target that is there", arguments: Casting.all, ["raw", "qed"])
    func intoWhatIsThere(_ cast: Casting, targetFormat: String) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 4 * cluster
        try bench.create("image", size, cast.geometry, by: cast.creator)
        try bench.play(
            ["write -P 1 512 \(cluster)", "write -z \(2 * cluster) \(cluster)"], on: "image", by: cast.writer)
        for (name, targetSize) in [("equal", size), ("larger", size + 2 * cluster), ("smaller", size - 512)] {
            try bench.create(name, targetSize, cast.geometry, as: targetFormat, by: cast.creator.other)
            try bench.play(["write -P 9 0 \(targetSize)"], on: name, format: targetFormat, by: .qemu)
        }
        func copy(_ name: String) throws -> CommandResult {
            try bench.image(cast.writer, "convert", "-n", "-f", "qed", "-O", targetFormat, "image", name)
        }
        let reads = [
            "read -P 0 0 512", "read -P 1 512 \(cluster)", "read -P 0 \(512 + cluster) \(3 * cluster - 512)",
        ]
        #expect(try copy("equal").status == 0)
        try bench.expectReads(reads, of: "equal", format: targetFormat)
        // What lies behind the source's end stays.
        #expect(try copy("larger").status == 0)
        try bench.expectReads(reads + ["read -P 9 \(size) \(2 * cluster)"], of: "larger", format: targetFormat)
        #expect(try copy("smaller").status == (cast.writer == .ours ? 64 : 1))
        try bench.expectReads(["read -P 9 0 \(size - 512)"], of: "smaller", format: targetFormat)
        if targetFormat == "qed" { try bench.expectSound("equal", "larger", "smaller") }
    }

    @Test("iotests 159, 170: pieces that dd takes out of an image", arguments: Casting.all)
    func pieces(_ cast: Casting) throws {
        // An end in the middle of everything.
        let size = 2 * mib + 512
        try bench.create("image", size, cast.geometry, by: cast.creator)
        let writes = ["-P 1 0 100k", "-P 2 512k 300k", "-P 3 2M 512"]
        try bench.play(writes.map { "write \($0)" }, on: "image", by: cast.writer)
        try bench.require(.ours, "convert", "image", "whole")
        let whole = try readFile(bench.path("whole"))
        // Never both: QEMU's dd takes what it skips off the count.
        let pieces: [(block: Int, skip: Int, count: Int?)] = [
            (512, 0, nil), (4096, 3, nil), (100_000, 0, 9), (1 << 20, 1, nil),
        ]
        for (block, skip, count) in pieces {
            let options = ["bs=\(block)", "skip=\(skip)"] + (count.map { ["count=\($0)"] } ?? [])
            for format in ["raw", "qed"] {
                let out = "out-\(format)"
                try bench.require(.qemu, ["dd", "-f", "qed", "-O", format] + options + ["if=image", "of=\(out)"])
                let end = min(whole.count, count.map { $0 * block } ?? whole.count)
                try writeFile(bench.path("expected"), Array(whole[(skip * block)..<end]))
                try bench.expectSame(out, "expected", formats: (format, "raw"))
                if format == "qed" { try bench.expectSound(out) }
                try FileManager.default.removeItem(atPath: bench.path(out))
            }
        }
    }

    @Test("iotest 251: what is left of an image with entries that cannot be right", arguments: Casting.all)
    func salvaged(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 8 * cluster
        try bench.create("image", size, cast.geometry, by: cast.creator)
        try bench.play(["write -P 1 0 \(size)"], on: "image", by: cast.writer)
        let editor = try ImageEditor(bench.path("image"))
        // Past the end of the file, and no multiple of a cluster.
        try editor.setL2Entry(0, 2, 1 << 50)
        try editor.setL2Entry(0, 5, cluster * 3 + 512)
        expectRefusal(try bench.ours("convert", "image", "copy"), 2, naming: "guest offset \(2 * cluster)")
        #expect(try bench.qemuImage("convert", "-f", "qed", "-O", "raw", "image", "failed").status == 1)
        try bench.require(.qemu, "convert", "-q", "--salvage", "-f", "qed", "-O", "raw", "image", "salvaged")
        // The same comes out after a repair by either.
        let reads = [
            "read -P 1 0 \(2 * cluster)", "read -P 0 \(2 * cluster) \(cluster)",
            "read -P 1 \(3 * cluster) \(2 * cluster)",
            "read -P 0 \(5 * cluster) \(cluster)", "read -P 1 \(6 * cluster) \(2 * cluster)",
        ]
        try bench.expectReads(reads, of: "salvaged", format: "raw")
        // Both repairs drop the two entries; the clusters that they named are leaked afterwards.
        let repair =
            cast.writer == .ours ? ["check", "-r", "all", "image"] : ["check", "-r", "all", "-f", "qed", "image"]
        #expect(try bench.image(cast.writer, repair).status == 3)
        try bench.expectReads(reads, of: "image")
        #expect(try bench.ours("check", "image").status == 3)
        #expect(try bench.ours("compact", "-q", "image").status == 0)
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
    }
}
