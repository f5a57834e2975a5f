import Foundation
import TestSupport
import Testing

/// Zeroes that are written: over data, over a backing file, over themselves, at any place.
@Suite struct ZeroTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    /// Ranges at the beginning of clusters, in the middle, and across them.
    private func ranges(_ cluster: UInt64) -> [(start: UInt64, count: UInt64)] {
        [
            (cluster, cluster), (3 * cluster + 512, 1024), (5 * cluster - 512, 1024),
            (6 * cluster + 1024, 2 * cluster), (10 * cluster - 4096, 4096 + cluster), (12 * cluster, 512),
        ]
    }

    private func reads(_ ranges: [(start: UInt64, count: UInt64)], around pattern: Int, to end: UInt64) -> [String] {
        var reads: [String] = []
        var position: UInt64 = 0
        for range in ranges {
            reads += [
                "read -P \(pattern) \(position) \(range.start - position)", "read -P 0 \(range.start) \(range.count)",
            ]
            position = range.start + range.count
        }
        return reads + ["read -P \(pattern) \(position) \(end - position)"]
    }

    @Test("iotest 033: over data, aligned and not", arguments: Casting.all)
    func overData(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 14 * cluster
        try bench.create("image", size, cast.geometry, by: cast.creator)
        try bench.play(["write -P 10 0 \(size)"], on: "image", by: cast.writer.other)
        let ranges = ranges(cluster)
        try bench.play(ranges.map { "write -z \($0.start) \($0.count)" }, on: "image", by: cast.writer)
        try bench.expectReads(reads(ranges, around: 10, to: size), of: "image")
        try bench.expectSound("image")
        // And data into what was zeroed.
        try bench.play(ranges.map { "write -P 10 \($0.start) \($0.count)" }, on: "image", by: cast.writer)
        try bench.expectReads(["read -P 10 0 \(size)"], of: "image")
        try bench.expectSound("image")
    }

    /// As below a disk whose sectors have 4 KiB: QEMU reads, changes and writes whole ones.
    @Test("iotest 033: in QEMU with blocks of 4 KiB", arguments: Geometry.all, Party.allCases)
    func withLargeBlocks(_ geometry: Geometry, creator: Party) throws {
        let cluster = geometry.clusterSizeBytes
        let size = 14 * cluster
        try bench.create("image", size, geometry, by: creator)
        try bench.play(["write -P 10 0 \(size)"], on: "image", by: creator)
        let ranges = ranges(cluster)
        try TestSupport.require(
            ["qemu-io", "--image-opts", "driver=blkdebug,align=4096,image.driver=qed,image.file.filename=image"]
                + ranges.flatMap { ["-c", "write -z \($0.start) \($0.count)"] }, in: bench.directory.path)
        try bench.expectReads(reads(ranges, around: 10, to: size), of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 034: over a backing file, and again over the zeroes", arguments: Casting.all, ["raw", "qed"])
    func overABackingFile(_ cast: Casting, baseFormat: String) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 14 * cluster
        try bench.create("base", size, cast.geometry, as: baseFormat, by: cast.creator.other)
        try bench.play(["write -P 10 0 \(size)"], on: "base", format: baseFormat, by: .qemu)
        try bench.create("image", size, cast.geometry, over: ("base", baseFormat), by: cast.creator)
        let ranges = ranges(cluster)
        let zeroes = ranges.map { "write -z \($0.start) \($0.count)" }
        try bench.play(zeroes, on: "image", by: cast.writer)
        try bench.expectReads(reads(ranges, around: 10, to: size), of: "image")
        try bench.expectSound("image")
        // Into the middle of a zero cluster: the rest of it must not become the backing file's. QEMU gets that
        // wrong, see `KnownFaultTests`.
        try bench.play(
            ["write -P 20 \(cluster + 1024) 512", "write -P 21 \(7 * cluster + 512) 512"], on: "image", by: .ours)
        try bench.expectReads(
            [
                "read -P 0 \(cluster) 1024", "read -P 20 \(cluster + 1024) 512",
                "read -P 0 \(cluster + 1536) \(cluster - 1536)", "read -P 10 \(2 * cluster) \(cluster)",
                "read -P 21 \(7 * cluster + 512) 512", "read -P 0 \(7 * cluster + 1024) \(cluster - 1024)",
            ], of: "image")
        // Zeroes over them again, the whole clusters at least: by the other program.
        try bench.play(
            ["write -z \(cluster) \(cluster)", "write -z \(6 * cluster + 1024) \(2 * cluster)"], on: "image",
            by: cast.writer.other)
        try bench.expectReads(reads(ranges, around: 10, to: size), of: "image")
        try bench.expectSound("image")
        try bench.expectReads(["read -P 10 0 \(size)"], of: "base", format: baseFormat)
    }

    @Test("iotest 050: zeroes stay zeroes on another backing file", arguments: Casting.all)
    func rebased(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = 8 * cluster
        for (name, pattern) in [("old", 10), ("new", 20)] {
            try bench.create(name, size, cast.geometry, by: cast.creator)
            try bench.play(["write -P \(pattern) 0 \(size)"], on: name, by: cast.writer)
        }
        try bench.create("image", nil, cast.geometry, over: ("old", "qed"), by: cast.creator)
        try bench.play(
            ["write -z \(cluster) \(2 * cluster)", "write -P 30 \(6 * cluster) 512"], on: "image",
            by: cast.creator)
        try bench.require(
            cast.writer,
            cast.writer == .ours
                ? ["rebase", "-b", "new", "-F", "qed", "image"]
                : ["rebase", "-f", "qed", "-b", "new", "-F", "qed", "image"])
        try bench.expectReads(
            [
                "read -P 10 0 \(cluster)", "read -P 0 \(cluster) \(2 * cluster)",
                "read -P 10 \(3 * cluster) \(3 * cluster)", "read -P 30 \(6 * cluster) 512",
                "read -P 10 \(6 * cluster + 512) \(2 * cluster - 512)",
            ], of: "image")
        try bench.expectSound("image")
    }
}
