import Foundation
import TestSupport
import Testing

/// What one program writes, both read: every byte, and what is around it.
@Suite struct PatternTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    @Test("iotest 001: a whole disk in large requests", arguments: Casting.all)
    func wholeDisk(_ cast: Casting) throws {
        let size = 16 * mib
        try bench.create("image", size, cast.geometry, by: cast.creator)
        try bench.expectReads(["read -P 0 0 \(size)"], of: "image")
        try bench.play(["write -P 0xa 0 \(size)", "read -P 0xa 0 \(size)"], on: "image", by: cast.writer)
        let quarters = (0..<UInt64(4)).map { "-P \($0 + 1) \($0 * 4 * mib) 4M" }
        try bench.play(
            quarters.map { "write \($0)" } + ["write -P 99 7M 2M"], on: "image", by: cast.writer)
        try bench.expectReads(
            ["read -P 1 0 4M", "read -P 2 4M 3M", "read -P 99 7M 2M", "read -P 3 9M 3M", "read -P 4 12M 4M"],
            of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 002: sizes and places that are no whole sectors", arguments: Casting.all)
    func smallSizes(_ cast: Casting) throws {
        let sizes: [UInt64] = [1, 3, 511, 512, 513, 1023, 1536, 4095, 4096, 4097, 65_535, 65_536, 65_537]
        try bench.create("image", 8 * mib, cast.geometry, by: cast.creator)
        var writes: [String] = []
        var reads: [String] = []
        // The first ones lie across the boundary of two clusters.
        var position = cast.geometry.clusterSizeBytes - 2
        for (index, size) in sizes.enumerated() {
            writes.append("write -P \(index + 1) \(position) \(size)")
            reads += ["read -P \(index + 1) \(position) \(size)", "read -P 0 \(position + size) 1000"]
            position += size + 1000
        }
        try bench.play(writes, on: "image", by: cast.writer)
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
    }

    @Test("iotests 003, 008: many requests at once", arguments: Casting.all)
    func manyAtOnce(_ cast: Casting) throws {
        try bench.create("image", 16 * mib, cast.geometry, by: cast.creator)
        switch cast.writer {
        case .ours:
            for (offset, pattern) in [(0, 5), (24576, 6)] {
                try bench.require(
                    .ours, "bench", "-w", "-c", "160", "-d", "32", "-s", "12k", "-S", "48k", "-o", "\(offset)",
                    "--pattern", "\(pattern)", "image")
            }
        case .qemu:
            var commands: [String] = []
            for index in 0..<160 {
                // Three pieces of memory each.
                commands += [
                    "aio_write -P 5 \(index * 49152) 4096 512 7680", "aio_write -P 6 \(index * 49152 + 24576) 12k",
                ]
            }
            try bench.play(commands + ["aio_flush", "writev -P 6 24576 512 1024 10752"], on: "image", by: .qemu)
        }
        var reads: [String] = []
        for index in 0..<160 {
            let start = index * 49152
            reads += [
                "read -P 5 \(start) 12k", "read -P 0 \(start + 12288) 12k", "read -P 6 \(start + 24576) 12k",
                "read -P 0 \(start + 36864) 12k",
            ]
        }
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 004: the end of the disk", arguments: Geometry.all, Party.allCases)
    func endOfTheDisk(_ geometry: Geometry, creator: Party) throws {
        // The last cluster is there in part.
        let size = 2 * geometry.clusterSizeBytes + 1536
        try bench.create("image", size, geometry, by: creator)
        for (index, party) in Party.allCases.enumerated() {
            let pattern = index + 1
            let edges = [
                "write -P \(pattern) 0 512", "read -P \(pattern) 0 512", "write -P \(pattern) \(size - 512) 512",
                "read -P \(pattern) \(size - 512) 512", "write -P \(pattern) \(size - 1) 1", "read \(size) 0",
            ]
            try bench.play(edges, on: "image", by: party)
            let past = [
                "read \(size) 512", "write \(size) 512", "read \(size - 512) 1024", "write -P 9 \(size - 512) 1024",
                "write -z \(size - 512) 1024", "discard \(size - 512) 1024", "read \(UInt64(1) << 40) 4k",
                "write \(UInt64(1) << 62) 4k",
            ]
            if party == .qemu {
                let result = try bench.attempt(past, on: "image", by: .qemu)
                #expect(result.status == 1)
                #expect((result.output + result.errors).components(separatedBy: "failed").count == past.count + 1)
            } else {
                for command in past {
                    expectRefusal(
                        try bench.attempt(["write -P 77 0 512", command], on: "image", by: .ours), 64, naming: "image")
                }
            }
            try bench.expectReads(
                ["read -P \(pattern) 0 512", "read -P \(pattern) \(size - 512) 512", "read -P 0 512 \(size - 1024)"],
                of: "image")
        }
        try bench.expectSound("image")
    }

    @Test("iotest 027: a cluster that is written in part is zeros elsewhere", arguments: Casting.all)
    func partsOfClusters(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        try bench.create("image", 8 * cluster, cast.geometry, by: cast.creator)
        // A crash can leave bytes behind the last whole cluster, where the next one is put.
        let file = try FileHandle(forUpdating: URL(fileURLWithPath: bench.path("image")))
        try file.seekToEnd()
        try file.write(contentsOf: Data(repeating: 0xee, count: 3072))
        try file.close()
        let places: [(start: UInt64, count: UInt64)] = [
            (1024, 512), (cluster + 512, 1024), (3 * cluster - 512, 512), (5 * cluster - 1024, 2048),
        ]
        var reads: [String] = []
        var end: UInt64 = 0
        for (index, place) in places.enumerated() {
            try bench.play(["write -P \(index + 1) \(place.start) \(place.count)"], on: "image", by: cast.writer)
            reads += [
                "read -P 0 \(end) \(place.start - end)", "read -P \(index + 1) \(place.start) \(place.count)",
            ]
            end = place.start + place.count
        }
        try bench.expectReads(reads + ["read -P 0 \(end) \(8 * cluster - end)"], of: "image")
        try bench.expectSound("image")
    }
}
