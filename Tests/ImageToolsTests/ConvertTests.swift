import Foundation
import QEDFormat
import SystemPackage
import TestSupport
import Testing

@testable import ImageTools

@Suite struct ConvertTests {
    let scratch: TemporaryDirectory

    init() throws { scratch = try TemporaryDirectory() }

    /// A raw file with data, explicit zeros and holes at odd places.
    private func makeRaw(_ name: String, sizeBytes: Int = 40_000_512) throws -> String {
        let path = scratch.path(name)
        try require(["qemu-img", "create", "-q", "-f", "raw", path, "\(sizeBytes)"])
        try qemuIO(
            path, format: "raw", "write -P 1 0 3M", "write -P 2 10M 70144", "write -P 0 20M 5M",
            "write -P 3 24001536 1024",
            "write -P 4 \(sizeBytes - 512) 512")
        return path
    }

    @Test("raw to QED and back, as QEMU reads it", arguments: TestGeometry.all)
    func thereAndBack(_ geometry: TestGeometry) throws {
        let raw = try makeRaw("a.raw")
        let image = scratch.path("a.qed")
        var conversion = Conversion(source: raw, sourceFormat: .raw, target: image, targetFormat: .qed)
        conversion.geometry = try QEDGeometry(
            clusterSizeBytes: geometry.clusterSizeBytes, tableSizeClusters: geometry.tableSizeClusters)
        conversion.verifies = true
        try conversion.run()
        #expect(try QEMUVerdict(of: image).corruptions + QEMUVerdict(of: image).leaks == 0)
        let content = try Data(contentsOf: URL(fileURLWithPath: raw))
        #expect(try guestContent(image) == content)
        // Zeros that were written to the source take no cluster.
        #expect(try ImageEditor(image).fileSizeBytes < 14 << 20)
        let back = scratch.path("b.raw")
        var conversionBack = Conversion(source: image, sourceFormat: .qed, target: back, targetFormat: .raw)
        conversionBack.verifies = true
        try conversionBack.run()
        #expect(try Data(contentsOf: URL(fileURLWithPath: back)) == content)
    }

    @Test func overlaysAreFlattened() throws {
        let raw = try makeRaw("base.raw")
        let overlay = scratch.path("o.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", raw, "-F", "raw", overlay, "60M"])
        try qemuIO(overlay, "write -P 9 1M 2M", "write -z 10M 64k", "write -P 8 50M 512")
        let copy = scratch.path("copy.qed")
        try Conversion(source: overlay, sourceFormat: .qed, target: copy, targetFormat: .qed).run()
        #expect(try guestContent(copy) == guestContent(overlay))
        #expect(try ImageEditor(copy).features == 0)
    }

    @Test func anExistingTargetIsKeptUnlessForced() throws {
        let raw = try makeRaw("a.raw")
        let target = scratch.path("t.qed")
        try writeFile(target, [1, 2, 3])
        var conversion = Conversion(source: raw, sourceFormat: .raw, target: target, targetFormat: .qed)
        #expect(throws: ImageToolError.exists(path: target)) { try conversion.run() }
        #expect(try readFile(target) == [1, 2, 3])
        conversion.replaces = true
        try conversion.run()
        #expect(try guestContent(target) == Data(contentsOf: URL(fileURLWithPath: raw)))
        #expect(try scratch.contents().keys.sorted() == ["a.raw", "t.qed"])
    }

    @Test func theSourceIsNeverTheTarget() throws {
        let raw = try makeRaw("a.raw")
        let overlay = scratch.path("o.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", raw, "-F", "raw", overlay])
        for target in [overlay, raw] {
            var conversion = Conversion(source: overlay, sourceFormat: .qed, target: target, targetFormat: .raw)
            conversion.replaces = true
            #expect(throws: ImageToolError.self) { try conversion.run() }
            conversion.keepsTarget = true
            #expect(throws: ImageToolError.self) { try conversion.run() }
        }
        #expect(try ImageCheck(path: overlay).run().report.isSound)
    }

    @Test func aDamagedSourceLeavesNothing() throws {
        let raw = try makeRaw("a.raw")
        let image = scratch.path("a.qed")
        try Conversion(source: raw, sourceFormat: .raw, target: image, targetFormat: .qed).run()
        try ImageEditor(image).setL2Entry(0, 3, 12345)
        let copy = scratch.path("copy.raw")
        #expect(throws: ImageToolError.self) {
            try Conversion(source: image, sourceFormat: .qed, target: copy, targetFormat: .raw).run()
        }
        #expect(try scratch.contents().keys.sorted() == ["a.qed", "a.raw"])
    }

    @Test("into what is there", arguments: [DiskFormat.raw, .qed])
    func intoWhatIsThere(_ format: DiskFormat) throws {
        let raw = try makeRaw("a.raw")
        let target = scratch.path("target")
        try require(["qemu-img", "create", "-q", "-f", format.rawValue, target, "50M"])
        try qemuIO(target, format: format.rawValue, "write -P 99 0 50M")
        var conversion = Conversion(source: raw, sourceFormat: .raw, target: target, targetFormat: format)
        conversion.keepsTarget = true
        // What lies past the source's end is none of its business.
        conversion.verifies = true
        try conversion.run()
        let content = try Data(contentsOf: URL(fileURLWithPath: raw))
        let result = try guestContent(target, format: format.rawValue)
        #expect(result.prefix(content.count) == content)
        #expect(result.suffix(from: content.count).allSatisfy { $0 == 99 })
    }
}

@Suite struct StreamCopyTests {
    /// The reader gets three and a half MiB, and then an error: the other end has closed without reading what it was sent.
    @Test func aStreamThatFailsTellsWhere() throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("a.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "64M"])
        var ends: [Int32] = [-1, -1]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0)
        let (reader, writer) = (FileDescriptor(rawValue: ends[0]), FileDescriptor(rawValue: ends[1]))
        defer { try? reader.close() }
        try reader.writeAll([1])
        Thread.detachNewThread {
            _ = try? writer.writeAll([UInt8](repeating: 7, count: 7 << 19))
            try? writer.close()
        }
        let disk = try Disk(path: image, format: .qed, isReadOnly: false)
        let error = #expect(throws: ImageToolError.self) {
            try StreamCopy(from: reader, called: "the stream", to: disk).run()
        }
        #expect(error == .request(path: "the stream", "read", deviceOffset: 7 << 19, .connectionReset))
        try disk.close()
    }
}

@Suite struct CompareTests {
    let scratch: TemporaryDirectory

    init() throws { scratch = try TemporaryDirectory() }

    private func compare(_ first: String, _ second: String, strict: Bool = false) throws -> (
        DiskComparison.Outcome, Int32
    ) {
        func format(_ path: String) -> DiskFormat { path.hasSuffix(".raw") ? .raw : .qed }
        let disks = try (
            Disk(path: first, format: format(first), isReadOnly: true),
            Disk(path: second, format: format(second), isReadOnly: true)
        )
        let outcome = try DiskComparison(disks.0, disks.1, isStrict: strict).run()
        let theirs = try run(
            ["qemu-img", "compare"] + (strict ? ["-s"] : [])
                + ["-f", format(first).rawValue, "-F", format(second).rawValue, first, second])
        if case .contentDiffers(let deviceOffset, _) = outcome {
            #expect(theirs.output.contains("Content mismatch at offset \(deviceOffset)!"), "\(theirs.output)")
        }
        return (outcome, theirs.status)
    }

    @Test func sameAndDifferent() throws {
        let first = scratch.path("a.qed")
        let second = scratch.path("b.raw")
        try require(["qemu-img", "create", "-q", "-f", "qed", first, "60M"])
        try require(["qemu-img", "create", "-q", "-f", "raw", second, "60M"])
        #expect(try compare(first, second) == (.identical(sizesDiffer: false), 0))
        try qemuIO(first, "write -P 1 30M 5M", "write -z 10M 1M")
        try qemuIO(second, format: "raw", "write -P 1 30M 5M", "write -P 0 50M 1M")
        #expect(try compare(first, second) == (.identical(sizesDiffer: false), 0))
        try qemuIO(second, format: "raw", "write -P 2 34000896 512")
        #expect(try compare(first, second) == (.contentDiffers(deviceOffset: 34_000_896, sizesDiffer: false), 1))
        #expect(try compare(second, first) == (.contentDiffers(deviceOffset: 34_000_896, sizesDiffer: false), 1))
        try qemuIO(second, format: "raw", "write -P 2 20M 512")
        #expect(try compare(first, second) == (.contentDiffers(deviceOffset: 20 << 20, sizesDiffer: false), 1))
    }

    @Test func sizesAndStrictness() throws {
        let first = scratch.path("a.qed")
        let second = scratch.path("b.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", first, "60M"])
        try require(["qemu-img", "create", "-q", "-f", "qed", second, "61M"])
        #expect(try compare(first, second) == (.identical(sizesDiffer: true), 0))
        #expect(try compare(first, second, strict: true) == (.sizesDiffer, 1))
        try qemuIO(second, "write -P 5 60M 512")
        #expect(try compare(first, second) == (.contentDiffers(deviceOffset: 60 << 20, sizesDiffer: true), 1))
        let third = scratch.path("c.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", third, "60M"])
        #expect(try compare(first, third, strict: true) == (.identical(sizesDiffer: false), 0))
        try qemuIO(third, "write -P 0 1M 64k")
        #expect(try compare(first, third, strict: true) == (.allocationDiffers(deviceOffset: 1 << 20), 1))
        #expect(try compare(first, third) == (.identical(sizesDiffer: false), 0))
    }
}
