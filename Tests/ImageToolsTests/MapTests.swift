import Foundation
import QEDFormat
import TestSupport
import Testing

@testable import ImageTools

/// Extents as the oracle writes them.
private struct QEMUExtent: Decodable, Equatable {
    var start: UInt64
    var length: UInt64
    var depth: Int
    var present: Bool
    var zero: Bool
    var data: Bool
    var offset: UInt64?

    init(_ extent: DiskExtent) {
        start = extent.start
        length = extent.length
        depth = extent.depth
        present = extent.kind != .unallocated
        data = extent.kind == .data
        zero = !data
        offset = extent.fileOffset
    }
}

@Suite struct MapTests {
    let scratch: TemporaryDirectory

    init() throws { scratch = try TemporaryDirectory() }

    private func expectSameMap(_ path: String, _ format: DiskFormat) throws {
        let output = try require(["qemu-img", "map", "-f", format.rawValue, "--output=json", path])
        let theirs = try JSONDecoder().decode([QEMUExtent].self, from: Data(output.utf8))
        var ours: [QEMUExtent] = []
        try DiskMap.open(path: path, format: format, sharing: false).forEachExtent { ours.append(QEMUExtent($0)) }
        #expect(ours == theirs)
    }

    @Test("the map is QEMU's", arguments: TestGeometry.all)
    func sameMap(_ geometry: TestGeometry) throws {
        let raw = scratch.path("base.raw")
        let middle = scratch.path("middle.qed")
        let top = scratch.path("top.qed")
        try require(["qemu-img", "create", "-q", "-f", "raw", raw, "10M"])
        try qemuIO(raw, format: "raw", "write -P 1 0 100k", "write -P 2 5M 70000", "write -P 2 9M 1M")
        try expectSameMap(raw, .raw)
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", raw, "-F", "raw", middle, "20M"])
        try qemuIO(middle, "write -P 3 1M 64k", "write -z 5M 64k", "write -P 7 15M 512", "write -P 9 16M 3M")
        try expectSameMap(middle, .qed)
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, "-b", middle, "-F", "qed", top, "40M",
        ])
        try qemuIO(
            top, "write -P 3 2M 8k", "write -z 9M 5M", "write -P 7 39M 512", "write -P 8 18M 3M", "write -P 1 0 4k",
            "write -P 1 4k 4k", "write -P 1 12M 3M")
        try expectSameMap(top, .qed)
    }

    /// QEMU tells the last sector of such a file apart to the byte; here an extent is whole sectors.
    @Test func anOddBaseEndsWithASector() throws {
        let raw = scratch.path("base.raw")
        let top = scratch.path("top.qed")
        try writeFile(raw, [UInt8](repeating: 7, count: 70_001))
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", raw, "-F", "raw", top, "1M"])
        var extents: [DiskExtent] = []
        try DiskMap.open(path: top, format: .qed, sharing: false).forEachExtent { extents.append($0) }
        #expect(
            extents == [
                DiskExtent(start: 0, length: 70_144, kind: .data, depth: 1, fileOffset: 0),
                DiskExtent(start: 70_144, length: (1 << 20) - 70_144, kind: .unallocated, depth: 0),
            ])
    }

    @Test func aBadEntryIsAnError() throws {
        let image = scratch.path("image.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "1M"])
        try qemuIO(image, "write -P 1 0 128k")
        try ImageEditor(image).setL2Entry(0, 1, 12345)
        let map = try DiskMap.open(path: image, format: .qed, sharing: false)
        #expect(throws: ImageToolError.corruptEntry(path: image, deviceOffset: 65536)) {
            try map.forEachExtent { _ in }
        }
    }

    @Test("what is measured is what a conversion takes", arguments: TestGeometry.all)
    func measured(_ geometry: TestGeometry) throws {
        let raw = scratch.path("base.raw")
        try require(["qemu-img", "create", "-q", "-f", "raw", raw, "60M"])
        try qemuIO(raw, format: "raw", "write -P 1 0 100k", "write -P 2 5M 70000", "write -P 2 50M 1M")
        let qedGeometry = try QEDGeometry(
            clusterSizeBytes: geometry.clusterSizeBytes, tableSizeClusters: geometry.tableSizeClusters)
        let map = try DiskMap.open(path: raw, format: .raw, sharing: false)
        let measurement = try Measurement(converting: map, to: qedGeometry)
        let image = scratch.path("image.qed")
        try require(["qemu-img", "convert", "-f", "raw", "-O", "qed", "-o", geometry.options, raw, image])
        #expect(try ImageEditor(image).fileSizeBytes == measurement.requiredBytes)
        try require(["qemu-img", "convert", "-S", "0", "-f", "raw", "-O", "qed", "-o", geometry.options, raw, image])
        #expect(try ImageEditor(image).fileSizeBytes == measurement.fullyAllocatedBytes)
        #expect(
            try Measurement(qedSizeBytes: 60 << 20, geometry: qedGeometry).requiredBytes
                == (1 + geometry.tableSizeClusters) * geometry.clusterSizeBytes)
    }
}
