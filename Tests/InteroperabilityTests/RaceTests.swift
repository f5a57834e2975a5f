import Foundation
import TestSupport
import Testing

/// Requests that meet in one cluster, or in one sector of a table, while it is being allocated.
@Suite struct RaceTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    /// Overlapping writes of 7 from `start` on, all under way at once.
    /// - Returns: how many bytes they cover.
    private func overlap(
        from start: UInt64, requestBytes: UInt64, stepBytes: UInt64, count: UInt64, on name: String, by party: Party
    ) throws -> UInt64 {
        switch party {
        case .ours:
            try bench.require(
                .ours, "bench", "-w", "-c", "\(count)", "-d", "64", "-s", "\(requestBytes)", "-S", "\(stepBytes)",
                "-o", "\(start)", "--pattern", "7", name)
        case .qemu:
            try bench.play(
                (0..<count).map { "aio_write -P 7 \(start + $0 * stepBytes) \(requestBytes)" } + ["aio_flush"],
                on: name, by: .qemu)
        }
        return (count - 1) * stepBytes + requestBytes
    }

    @Test("iotest 011: overlapping writes to clusters that are not there yet", arguments: Casting.all)
    func overlappingWrites(_ cast: Casting) throws {
        // Across the end of a table, and of a cluster.
        let boundary = cast.geometry.bytesPerTable
        let start = boundary - mib - 512
        try bench.create("image", boundary + 16 * mib, cast.geometry, by: cast.creator)
        let count = try overlap(
            from: start, requestBytes: mib, stepBytes: 64 * kib, count: 17, on: "image", by: cast.writer)
        try bench.expectReads(
            [
                "read -P 0 \(start - mib) 1M", "read -P 7 \(start) \(count)", "read -P 0 \(start + count) 1M",
            ], of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 038: overlapping writes over a backing file", arguments: Casting.all)
    func overlappingWritesOverABackingFile(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        let size = max(2 * mib, 4 * cluster)
        try bench.createRaw("base", size)
        try bench.play(["write -P 3 0 \(size)"], on: "base", format: "raw", by: .qemu)
        try bench.create("image", nil, cast.geometry, over: ("base", "raw"), by: cast.creator)
        let start = cluster - 1536
        let count = try overlap(
            from: start, requestBytes: 1536, stepBytes: 1024, count: 300, on: "image", by: cast.writer)
        try bench.expectReads(
            [
                "read -P 3 0 \(start)", "read -P 7 \(start) \(count)",
                "read -P 3 \(start + count) \(size - start - count)",
            ], of: "image")
        try bench.expectSound("image")
        try bench.expectReads(["read -P 3 0 \(size)"], of: "base", format: "raw")
    }

    /// A table is written in pieces of sectors: an entry must not take its neighbours along.
    @Test("iotest regression-vhdx-log: the first entry of a sector of the table", arguments: Casting.all)
    func neighboursInATable(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        try bench.create("image", 600 * cluster, cast.geometry, by: cast.creator)
        var expected: [String] = []
        func write(_ entries: [UInt64]) throws {
            let ranges = entries.map { "-P \($0 % 250 + 1) \($0 * cluster + 512) 512" }
            try bench.play(ranges.map { "write \($0)" }, on: "image", by: cast.writer)
            expected += ranges.map { "read \($0)" }
        }
        // 64 entries to a sector, 512 to a page.
        try write([1, 63, 65, 127, 513])
        try write([0, 64, 512])
        try write([2])
        try bench.expectReads(expected, of: "image")
        try bench.expectSound("image")
    }
}
