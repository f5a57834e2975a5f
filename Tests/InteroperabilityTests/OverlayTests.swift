import Foundation
import TestSupport
import Testing

/// Chains of images: flattened, committed, given other backing files, and broken.
@Suite struct OverlayTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    /// base, middle and top, each with data of its own and some of it over that of the one below.
    /// - Returns: what the top reads as.
    private func makeChain(_ cast: Casting, baseFormat: String = "qed") throws -> [String] {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 16 * cluster
        try bench.create("base", size, cast.geometry, as: baseFormat, by: cast.creator)
        try bench.play(["write -P 1 0 \(6 * cluster)"], on: "base", format: baseFormat, by: cast.writer)
        try bench.create("middle", nil, cast.geometry, over: ("base", baseFormat), by: cast.creator.other)
        try bench.play(
            ["write -P 2 \(cluster) 512", "write -P 2 \(8 * cluster) \(cluster)"], on: "middle", by: cast.writer.other)
        try bench.create("top", size + cluster, cast.geometry, over: ("middle", "qed"), by: cast.creator)
        try bench.play(
            ["write -P 3 \(2 * cluster + 1024) 512", "write -z \(3 * cluster) \(cluster)", "write -P 3 \(size) 512"],
            on: "top", by: cast.writer)
        return [
            "read -P 1 0 \(cluster)", "read -P 2 \(cluster) 512", "read -P 1 \(cluster + 512) \(cluster + 512)",
            "read -P 3 \(2 * cluster + 1024) 512", "read -P 1 \(2 * cluster + 1536) \(cluster - 1536)",
            "read -P 0 \(3 * cluster) \(cluster)", "read -P 1 \(4 * cluster) \(2 * cluster)",
            "read -P 0 \(6 * cluster) \(2 * cluster)", "read -P 2 \(8 * cluster) \(cluster)",
            "read -P 0 \(9 * cluster) \(7 * cluster)", "read -P 3 \(size) 512",
            "read -P 0 \(size + 512) \(cluster - 512)",
        ]
    }

    @Test("iotest 018: a converted chain is one file with everything", arguments: Casting.all, ["raw", "qed"])
    func flattened(_ cast: Casting, baseFormat: String) throws {
        let reads = try makeChain(cast, baseFormat: baseFormat)
        try bench.expectReads(reads, of: "top")
        for party in Party.allCases {
            for format in ["raw", "qed"] {
                let copy = "copy-\(party)-\(format)"
                try bench.require(party, "convert", "-f", "qed", "-O", format, "top", copy)
                try bench.expectReads(reads, of: copy, format: format)
            }
        }
        try bench.expectSame("copy-ours-qed", "copy-qemu-qed")
        try bench.expectSame("copy-ours-raw", "top", formats: ("raw", "qed"))
        try bench.expectSound("top", "middle", "copy-ours-qed", "copy-qemu-qed")
    }

    @Test("iotest 020: commit puts an overlay into its backing file", arguments: Casting.all, ["raw", "qed"])
    func committed(_ cast: Casting, baseFormat: String) throws {
        let reads = try makeChain(cast, baseFormat: baseFormat)
        try bench.require(
            cast.writer, cast.writer == .ours ? ["commit", "top"] : ["commit", "-q", "-f", "qed", "top"])
        try bench.expectReads(reads, of: "middle")
        try bench.expectReads(reads, of: "top")
        try bench.expectSound("top", "middle")
        try bench.require(
            cast.writer.other,
            cast.writer.other == .ours ? ["commit", "-d", "middle"] : ["commit", "-q", "-d", "-f", "qed", "middle"])
        try bench.expectReads(reads, of: "base", format: baseFormat)
        try bench.expectReads(reads, of: "top")
    }

    @Test("iotest 020: commit of what has no backing file, or one that is gone", arguments: Party.allCases)
    func nothingToCommitTo(_ creator: Party) throws {
        try bench.create("image", mib, by: creator)
        try bench.create("base", mib, by: creator)
        try bench.create("overlay", nil, over: ("base", "qed"), by: creator)
        try bench.play(["write 0 4k"], on: "overlay", by: creator)
        try FileManager.default.removeItem(atPath: bench.path("base"))
        let before = try bench.directory.contents()
        expectRefusal(try bench.ours("commit", "image"), 64, naming: "image")
        #expect(try bench.qemuImage("commit", "-f", "qed", "image").status == 1)
        expectRefusal(try bench.ours("commit", "overlay"), 4, naming: "base")
        #expect(try bench.qemuImage("commit", "-f", "qed", "overlay").status == 1)
        #expect(try bench.directory.contents() == before)
    }

    @Test("iotest 024: another backing file, both in other directories", arguments: Casting.all)
    func rebased(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        for directory in ["old", "new", "overlay"] { try bench.directory.makeDirectory(directory) }
        // Every combination of what the old one, the new one and the overlay have, a cluster each.
        func combinations(_ bit: UInt64, _ pattern: Int) -> [String] {
            (0..<UInt64(8)).filter { $0 & bit != 0 }.map { "write -P \(pattern) \($0 * cluster) \(cluster)" }
        }
        for (name, bit, pattern) in [("old/base", UInt64(1), 10), ("new/base", 2, 20)] {
            try bench.create(name, 8 * cluster, cast.geometry, by: cast.creator)
            try bench.play(combinations(bit, pattern), on: name, by: cast.writer)
        }
        try bench.create("overlay/image", nil, cast.geometry, over: ("../old/base", "qed"), by: cast.creator)
        try bench.play(combinations(4, 30), on: "overlay/image", by: cast.writer)
        let reads = (0..<UInt64(8)).map {
            "read -P \($0 & 4 != 0 ? 30 : $0 & 1 != 0 ? 10 : 0) \($0 * cluster) \(cluster)"
        }
        try bench.expectReads(reads, of: "overlay/image")
        let format = cast.writer == .qemu ? ["-f", "qed"] : []
        try bench.require(
            cast.writer, ["rebase"] + format + ["-b", "../new/base", "-F", "qed", "overlay/image"])
        try FileManager.default.removeItem(atPath: bench.path("old/base"))
        try bench.expectReads(reads, of: "overlay/image")
        try bench.expectSound("overlay/image")
        // The name alone, by the other program; and none at last.
        try FileManager.default.moveItem(atPath: bench.path("new"), toPath: bench.path("moved"))
        let otherFormat = cast.writer == .ours ? ["-f", "qed"] : []
        try bench.require(
            cast.writer.other, ["rebase", "-u"] + otherFormat + ["-b", "../moved/base", "-F", "qed", "overlay/image"])
        try bench.expectReads(reads, of: "overlay/image")
        try bench.require(cast.writer, ["rebase"] + format + ["-b", "", "overlay/image"])
        try FileManager.default.removeItem(atPath: bench.path("moved/base"))
        try bench.expectReads(reads, of: "overlay/image")
        try bench.expectSound("overlay/image")
    }

    @Test("iotest 043: files that back themselves, over one step or two", arguments: Party.allCases)
    func loops(_ creator: Party) throws {
        for name in ["a", "b", "alone"] { try bench.create(name, mib, by: creator) }
        for (name, backing) in [("a", "b"), ("b", "a"), ("alone", "alone")] {
            try bench.require(.qemu, "rebase", "-u", "-f", "qed", "-b", backing, "-F", "qed", name)
        }
        let before = try bench.directory.contents()
        for name in ["a", "b", "alone"] {
            expectRefusal(try bench.ours("info", "--backing-chain", name), 2, naming: "loop")
            expectRefusal(try bench.ours("io", name, "read 0 4k"), 2, naming: "loop")
            #expect(try bench.ours("info", name).status == 0)
            let result = try bench.qemuImage("info", "--backing-chain", name)
            #expect(result.status == 1 && result.errors.contains("loop"), "\(result.errors)")
        }
        #expect(try bench.directory.contents() == before)
    }

    @Test("iotest 069: a backing file that is gone", arguments: Party.allCases)
    func missingBackingFile(_ creator: Party) throws {
        try bench.create("base", mib, by: creator)
        try bench.create("image", nil, over: ("base", "qed"), by: creator)
        try FileManager.default.removeItem(atPath: bench.path("base"))
        let before = try bench.directory.contents()
        for command in [
            ["io", "image", "read 0 4k"], ["io", "image", "write 0 4k"], ["map", "image"], ["convert", "image", "x"],
        ] {
            expectRefusal(try bench.ours(command), 4, naming: "base: no such file (it is the backing file of image)")
        }
        // What needs the image alone works.
        #expect(try bench.ours("info", "image").output.contains("backing file: base (missing)"))
        #expect(try bench.ours("check", "image").status == 0)
        #expect(try bench.directory.contents() == before)
        let result = try bench.attempt(["read 0 4k"], on: "image", by: .qemu)
        #expect(result.status == 1 && result.errors.contains("No such file or directory"))
        // And the way out of it.
        try bench.create("found", mib, by: creator)
        try bench.require(.ours, "rebase", "-u", "-b", "found", "-F", "qed", "image")
        try bench.expectReads(["read -P 0 0 1M"], of: "image")
    }

    @Test("iotest 279: the chain, as both tell it", arguments: Casting.all)
    func backingChain(_ cast: Casting) throws {
        _ = try makeChain(cast, baseFormat: "raw")
        let ours = try bench.ours("info", "--backing-chain", "--output", "json", "top")
        for arguments in [["top"], ["--image-opts", "driver=qed,file.filename=top"]] {
            let theirs = try bench.qemuImage(["info", "--backing-chain", "--output=json"] + arguments)
            let mine = try #require(try JSONSerialization.jsonObject(with: Data(ours.output.utf8)) as? [[String: Any]])
            let its = try #require(try JSONSerialization.jsonObject(with: Data(theirs.output.utf8)) as? [[String: Any]])
            #expect(mine.count == 3 && its.count == 3)
            for (one, other) in zip(mine, its) {
                for (key, value) in other { #expect(one[key] as? NSObject == value as? NSObject, "\(key)") }
            }
        }
    }
}
