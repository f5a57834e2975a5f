import Foundation
import TestSupport
import Testing

/// What an overlay shows of its backing file, and what it copies from it.
@Suite struct CopyOnWriteTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    /// Sectors that all differ from their neighbours.
    private func sectors(_ count: UInt64) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Int(count) * 512)
        for sector in 0..<Int(count) {
            let value = UInt8(truncatingIfNeeded: sector &* 7 &+ sector >> 8 &+ 1)
            for index in (sector * 512)..<(sector * 512 + 512) { bytes[index] = value }
        }
        return bytes
    }

    @Test("iotest 017: an overlay reads as its backing file", arguments: Casting.all, ["raw", "qed"])
    func readThrough(_ cast: Casting, baseFormat: String) throws {
        let cluster = cast.geometry.clusterSizeBytes
        // Around the end of the first table, and at the end.
        let table = cast.geometry.bytesPerTable
        let size = table + 8 * cluster
        try bench.create("base", size, cast.geometry, as: baseFormat, by: cast.creator)
        let places = [0, 3 * cluster - 512, table - cluster - 512, table, size - 1024]
        let ranges = places.enumerated().map { "-P \($0.offset + 1) \($0.element) 1024" }
        try bench.play(ranges.map { "write \($0)" }, on: "base", format: baseFormat, by: cast.writer)
        try bench.create("image", nil, cast.geometry, over: ("base", baseFormat), by: cast.creator.other)
        try bench.expectReads(
            ranges.map { "read \($0)" } + ["read -P 0 \(table + 1024) \(cluster)"], of: "image")
        try bench.expectSound("image")
        // The overlay holds nothing but its tables.
        #expect(try bench.fileSizeBytes("image") == cluster * (1 + cast.geometry.tableSizeClusters))
    }

    @Test("iotest 028: a backing file that ends first", arguments: Casting.all, ["raw", "qed"])
    func shortBackingFile(_ cast: Casting, baseFormat: String) throws {
        let cluster = cast.geometry.clusterSizeBytes
        // Inside a cluster and, where a disk can be that large, just behind 4 GiB.
        let baseSize = min(4 * gib, cast.geometry.largestDiskBytes / 2) + 1536
        try bench.create("base", baseSize, cast.geometry, as: baseFormat, by: cast.creator)
        try bench.play(
            ["write -P 5 \(baseSize - 1536 - 4 * cluster) \(4 * cluster + 1536)"], on: "base", format: baseFormat,
            by: cast.writer)
        let size = baseSize - 1536 + 64 * cluster
        try bench.create("image", size, cast.geometry, over: ("base", baseFormat), by: cast.creator)
        try bench.expectReads(
            ["read -P 5 \(baseSize - 4096) 4096", "read -P 0 \(baseSize) \(8 * cluster)"], of: "image")
        // Into the cluster where the backing file ends, on both sides of that; then across it.
        let end = baseSize - 1536
        try bench.play(
            [
                "write -P 6 \(end) 512", "write -P 7 \(end + 2048) 512", "write -P 8 \(end + 5 * cluster) 512",
                "write -P 9 \(end - cluster - 512) 1024",
            ], on: "image", by: cast.writer)
        try bench.expectReads(
            [
                "read -P 5 \(end - 4 * cluster) \(3 * cluster - 512)", "read -P 9 \(end - cluster - 512) 1024",
                "read -P 5 \(end - cluster + 512) \(cluster - 512)", "read -P 6 \(end) 512",
                "read -P 5 \(end + 512) 1024", "read -P 0 \(end + 1536) 512", "read -P 7 \(end + 2048) 512",
                "read -P 0 \(end + 2560) \(5 * cluster - 2560)", "read -P 8 \(end + 5 * cluster) 512",
                "read -P 0 \(end + 5 * cluster + 512) \(cluster)", "read -P 0 \(size - 1024) 1024",
            ], of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 037: what a write to one, two or many clusters copies", arguments: Casting.all)
    func headAndTail(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let sizeBytes = max(6 * cluster, 64 * kib)
        var content = sectors(sizeBytes / 512)
        try writeFile(bench.path("base"), content)
        try bench.create("image", nil, cast.geometry, over: ("base", "raw"), by: cast.creator)
        var commands: [String] = []
        // One cluster: its head, its middle, its tail. Two: across their boundary. Many.
        let places = [
            (0, 512), (cluster + 1024, 512), (2 * cluster - 512, 512), (3 * cluster - 1024, 1536),
            (4 * cluster - 512, cluster + 1024),
        ]
        for (index, place) in places.enumerated() {
            commands.append("write -P \(index + 200) \(place.0) \(place.1)")
            for byte in place.0..<(place.0 + place.1) { content[Int(byte)] = UInt8(index + 200) }
        }
        try bench.play(commands, on: "image", by: cast.writer)
        try writeFile(bench.path("expected"), content)
        try bench.expectSame("image", "expected", formats: ("qed", "raw"))
        try bench.expectSound("image")
        // Nothing is copied twice.
        #expect(
            try bench.fileSizeBytes("image") == cluster * (1 + 2 * cast.geometry.tableSizeClusters + 6))
    }

    @Test("iotest 197: QEMU copies what it reads out of a chain of ours", arguments: Geometry.all, Party.allCases)
    func copyOnRead(_ geometry: Geometry, creator: Party) throws {
        let cluster = geometry.clusterSizeBytes
        let size = 8 * cluster
        try bench.create("base", size, geometry, by: creator)
        try bench.play(
            ["write -P 1 0 \(cluster)", "write -P 2 \(2 * cluster + 512) 512", "write -z \(4 * cluster) \(cluster)"],
            on: "base", by: creator)
        try bench.create("image", size, geometry, over: ("base", "qed"), by: creator)
        try TestSupport.require(
            ["qemu-io", "-C", "-f", "qed", "image", "-c", "read 0 \(size)"], in: bench.directory.path)
        // The overlay has everything now.
        let reads = [
            "read -P 1 0 \(cluster)", "read -P 0 \(cluster) \(cluster + 512)", "read -P 2 \(2 * cluster + 512) 512",
            "read -P 0 \(2 * cluster + 1024) \(6 * cluster - 1024)",
        ]
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
        try bench.require(.ours, "rebase", "-u", "-b", "", "image")
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
    }
}
