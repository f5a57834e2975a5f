import Foundation
import QEDEngine
import QEDFormat
import TestSupport
import Testing

@testable import ImageTools

@Suite struct ResizeTests {
    let scratch: TemporaryDirectory
    var image: String { scratch.path("image.qed") }

    init() throws { scratch = try TemporaryDirectory() }

    private func expectSound(_ path: String) throws {
        let verdict = try QEMUVerdict(of: path)
        #expect(verdict.corruptions + verdict.leaks + verdict.errors == 0)
        #expect(try ImageEditor(path).features & 2 == 0)
    }

    @Test("growing keeps the data and adds zeros", arguments: TestGeometry.all)
    func grow(_ geometry: TestGeometry) throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, image, "10000384"])
        try qemuIO(image, "write -P 1 0 10000384")
        let content = try guestContent(image)
        #expect(try ImageResize(path: image, change: .by(20 << 20)).run() == 10_000_384 + 20 << 20)
        let grown = try guestContent(image)
        #expect(grown.count == 10_000_384 + 20 << 20)
        #expect(grown.prefix(content.count) == content)
        #expect(grown.suffix(from: content.count).allSatisfy { $0 == 0 })
        try expectSound(image)
        try qemuIO(image, "write -P 2 15M 64k", "read -P 1 1M 64k")
    }

    /// QEMU refuses this; without care the backing file would come into view.
    @Test("a grown overlay does not show what lies behind its old end", arguments: TestGeometry.all)
    func growOverlay(_ geometry: TestGeometry) throws {
        let base = scratch.path("base.raw")
        try writeFile(base, [UInt8](repeating: 7, count: 30 << 20))
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, "-b", base, "-F", "raw", image, "10000384",
        ])
        try qemuIO(image, "write -P 1 1M 64k")
        let content = try guestContent(image)
        _ = try ImageResize(path: image, change: .to(40 << 20)).run()
        let grown = try guestContent(image)
        #expect(grown.prefix(content.count) == content)
        #expect(grown.suffix(from: content.count).allSatisfy { $0 == 0 })
        try expectSound(image)
    }

    @Test func growingClearsStaleEntriesAndTheTailOfTheLastCluster() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "10M"])
        try qemuIO(image, "write -P 5 0 10M")
        // As after an interrupted shrink: the size alone has changed.
        try ImageEditor(image).setWord(1_000_448, at: 48)
        _ = try ImageResize(path: image, change: .to(10 << 20)).run()
        let content = try guestContent(image)
        #expect(content.prefix(1_000_448).allSatisfy { $0 == 5 })
        #expect(content.suffix(from: 1_000_448).allSatisfy { $0 == 0 })
        try expectSound(image)
    }

    @Test("shrinking gives the space back", arguments: TestGeometry.all)
    func shrink(_ geometry: TestGeometry) throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, image, "30M"])
        try qemuIO(image, "write -P 5 0 5M", "write -P 6 20M 10M")
        let size = try ImageEditor(image).fileSizeBytes
        let change = ImageResize(path: image, change: .to(3_000_320))
        #expect(throws: ImageToolError.self) { try change.run() }
        #expect(try ImageEditor(image).fileSizeBytes == size)
        _ = try ImageResize(path: image, change: .to(3_000_320), allowsShrinking: true).run()
        #expect(try guestContent(image) == Data(repeating: 5, count: 3_000_320))
        let report = try ImageCheck(path: image).run().report
        #expect(report.isSound)
        #expect(report.fileSizeBytes <= size - (10 << 20))
        // Growing again, even with QEMU, shows nothing of what was there.
        try require(["qemu-img", "resize", "-q", "-f", "qed", image, "30M"])
        #expect(try guestContent(image).suffix(from: 3_000_320).allSatisfy { $0 == 0 })
    }

    /// The header was durable, the rest was not: the same size again ends it.
    @Test func anInterruptedShrinkIsFinishedByTheNext() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "30M"])
        try qemuIO(image, "write -P 5 0 30M")
        try ImageEditor(image).setWord(1 << 20, at: 48)
        _ = try ImageResize(path: image, change: .to(1 << 20), allowsShrinking: true).run()
        #expect(try guestContent(image) == Data(repeating: 5, count: 1 << 20))
        // QEMU has put the table behind the data: what lay between has become a hole, until it is compacted.
        #expect(try ImageCheck(path: image).run().report.leakedClusters == 464)
        _ = try ImageCompaction(path: image).run()
        #expect(try ImageEditor(image).fileSizeBytes == 25 << 16)
        try expectSound(image)
    }

    @Test func rawFilesToo() throws {
        let raw = scratch.path("a.raw")
        try writeFile(raw, [UInt8](repeating: 7, count: 100_000))
        #expect(try ImageResize(path: raw, format: .raw, change: .to(200_000)).run() == 200_192)
        #expect(try readFile(raw).count == 200_192)
        #expect(throws: ImageToolError.self) { try ImageResize(path: raw, format: .raw, change: .less(512)).run() }
        _ = try ImageResize(path: raw, format: .raw, change: .less(192), allowsShrinking: true).run()
        #expect(try readFile(raw).count == 200_192)
    }

    @Test func sizesThatCannotBeAreRefused() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=4096,table_size=2", image, "1M"])
        let before = try readFile(image)
        for change in [ImageResize.Change.to(4 << 30 + 512), .by(.max), .less(2 << 20), .to(.max)] {
            #expect(throws: ImageToolError.self) {
                try ImageResize(path: image, change: change, allowsShrinking: true).run()
            }
        }
        #expect(try readFile(image) == before)
    }
}
