import Foundation
import TestSupport
import Testing

/// Disks of all sizes: nothing, odd, large, and larger than before.
@Suite struct SizeTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    @Test(
        "iotests 005, 009, 010, 105: scattered writes in a large disk", arguments: Casting.all,
        [6 * gib, 5 * tib, 16 * tib])
    func scattered(_ cast: Casting, wanted: UInt64) throws {
        let size = min(wanted, cast.geometry.largestDiskBytes)
        try bench.create("image", size, cast.geometry, by: cast.creator)
        let places = [0, size / 6 / 4096 * 4096 - 2048, size / 8 * 7, size - 4096]
        var reads: [String] = []
        for (index, place) in places.enumerated() {
            try bench.play(
                ["write -P \(index + 1) \(place) 4k"], on: "image", by: index == 2 ? cast.writer.other : cast.writer)
            reads.append("read -P \(index + 1) \(place) 4k")
            if place > 0 { reads.append("read -P 0 \(place - 4096) 4k") }
            if place < size - 8192 { reads.append("read -P 0 \(place + 4096) 4k") }
        }
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
        #expect(try bench.parsed(bench.qemuImage("info", "--output=json", "image"))["virtual-size"] as? UInt64 == size)
    }

    @Test("iotest 105: what no table could map", arguments: Geometry.all.filter { $0.clusterSizeBytes == 4 * kib })
    func tooLarge(_ geometry: Geometry) throws {
        let size = "\(geometry.largestDiskBytes + 512)"
        expectRefusal(try bench.ours("create", "-o", geometry.options, "image", size), 64, naming: "image")
        #expect(try bench.directory.contents().isEmpty)
        #expect(try bench.qemuImage("create", "-q", "-f", "qed", "-o", geometry.options, "theirs", size).status == 1)
    }

    @Test("iotest 025: a disk that grows", arguments: Casting.all)
    func growing(_ cast: Casting) throws {
        let cluster = cast.geometry.clusterSizeBytes
        // The end lies in a cluster that is written.
        let first = 2 * cluster + 512
        try bench.create("image", first, cast.geometry, by: cast.creator)
        try bench.play(["write -P 1 0 \(first)"], on: "image", by: cast.creator)
        var reads = ["read -P 1 0 \(first)"]
        var end = first
        for (index, size) in [3 * cluster, 5 * cluster + 1024, cast.geometry.bytesPerTable + 4 * cluster].enumerated() {
            switch (cast.writer, index) {
            case (.ours, 1): try bench.require(.ours, "resize", "-q", "image", "+\(size - end)")
            case (.ours, _): try bench.require(.ours, "resize", "-q", "image", "\(size)")
            case (.qemu, 1): try bench.require(.qemu, "resize", "-q", "-f", "qed", "image", "+\(size - end)")
            case (.qemu, _): try bench.require(.qemu, "resize", "-q", "-f", "qed", "image", "\(size)")
            }
            try bench.expectReads(
                reads + ["read -P 0 \(end) \(min(size - end, 4 * cluster))", "read -P 0 \(size - 512) 512"], of: "image"
            )
            try bench.play(
                ["write -P \(index + 2) \(end) 512", "write -P \(index + 2) \(size - 512) 512"], on: "image",
                by: cast.writer)
            reads += ["read -P \(index + 2) \(end) 512", "read -P \(index + 2) \(size - 512) 512"]
            end = size
        }
        try bench.expectReads(reads, of: "image")
        try bench.expectSound("image")
    }

    @Test("iotest 042: a disk without any size", arguments: Casting.all)
    func empty(_ cast: Casting) throws {
        try bench.create("image", 0, cast.geometry, by: cast.creator)
        try bench.expectSound("image")
        for party in Party.allCases {
            try bench.require(party, "convert", "-f", "qed", "-O", "qed", "image", "copy-\(party)")
            try bench.require(party, "convert", "-f", "qed", "-O", "raw", "image", "raw-\(party)")
            #expect(try bench.fileSizeBytes("raw-\(party)") == 0)
            try bench.expectSound("copy-\(party)")
            try bench.expectSame("image", "copy-\(party)")
        }
        #expect(try bench.ours("map", "image").output == bench.qemuImage("map", "-f", "qed", "image").output)
        // Under a larger overlay it is nothing but zeros; and it can be an overlay itself.
        try bench.create("overlay", mib, cast.geometry, over: ("image", "qed"), by: cast.creator)
        try bench.play(["write -P 1 0 512"], on: "overlay", by: cast.writer)
        try bench.expectReads(["read -P 1 0 512", "read -P 0 512 1048064"], of: "overlay")
        try bench.create("other", mib, cast.geometry, by: cast.creator)
        let format = cast.writer == .qemu ? ["-f", "qed"] : []
        try bench.require(cast.writer, ["rebase"] + format + ["-b", "other", "-F", "qed", "image"])
        try bench.require(cast.writer, ["rebase"] + format + ["-b", "", "image"])
        try bench.expectSound("image", "overlay")
        // Grown, it is a disk like any other.
        let growth = cast.writer == .qemu ? ["resize", "-q", "-f", "qed", "image", "1M"] : ["resize", "image", "1M"]
        try bench.require(cast.writer, growth)
        try bench.play(["write -P 4 1048064 512"], on: "image", by: cast.writer)
        try bench.expectReads(["read -P 0 0 1048064", "read -P 4 1048064 512"], of: "image")
    }

    @Test("iotest 104: sizes are rounded up to sectors", arguments: [(1024, 1024), (1234, 1536), (1, 512)])
    func roundedUp(wanted: UInt64, size: UInt64) throws {
        for party in Party.allCases {
            try bench.create("image-\(party)", wanted, by: party)
            for reader in Party.allCases {
                let info = try bench.parsed(bench.image(reader, "info", "--output", "json", "image-\(party)"))
                #expect(info["virtual-size"] as? UInt64 == size)
            }
        }
        #expect(try readFile(bench.path("image-ours")) == readFile(bench.path("image-qemu")))
    }

    @Test("iotest 111: no size, and the backing file is missing")
    func noSize() throws {
        expectRefusal(
            try bench.ours("create", "--backing", "none", "--backing-format", "qed", "image"), 4, naming: "none")
        expectRefusal(try bench.ours("create", "image"), 64, naming: "size")
        #expect(try bench.qemuImage("create", "-f", "qed", "-b", "none", "-F", "qed", "image").status == 1)
        #expect(try bench.qemuImage("create", "-f", "qed", "image").status == 1)
        #expect(try bench.directory.contents().isEmpty)
    }

    @Test("the same new image, byte for byte", arguments: Geometry.all)
    func sameNewImage(_ geometry: Geometry) throws {
        try bench.createRaw("base", 3 * mib)
        for party in Party.allCases {
            try bench.create("plain-\(party)", 3 * mib, geometry, by: party)
            try bench.create("over-raw-\(party)", nil, geometry, over: ("base", "raw"), by: party)
            try bench.create("over-qed-\(party)", 5 * mib, geometry, over: ("plain-ours", "qed"), by: party)
        }
        for kind in ["plain", "over-raw", "over-qed"] {
            #expect(try readFile(bench.path("\(kind)-ours")) == readFile(bench.path("\(kind)-qemu")), "\(kind)")
        }
    }
}
