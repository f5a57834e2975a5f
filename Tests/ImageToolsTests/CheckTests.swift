import BlockStorage
import Foundation
import QEDFormat
import TestSupport
import Testing

@testable import ImageTools

extension CheckReport {
    var verdict: QEMUVerdict {
        QEMUVerdict(
            corruptions: corruptions, leaks: leakedClusters, allocated: allocatedClusters,
            fragmented: fragmentedClusters, errors: unreadableTables)
    }
}

@Suite struct CheckTests {
    let scratch: TemporaryDirectory
    var image: String { scratch.path("image.qed") }

    init() throws { scratch = try TemporaryDirectory() }

    /// An image with data in three tables.
    private func makeImage(_ geometry: TestGeometry) throws {
        let perTable = geometry.clusterSizeBytes * geometry.clusterSizeBytes * geometry.tableSizeClusters / 8
        let step = perTable >> 1
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", geometry.options, image, "\(3 * perTable)"])
        let cluster = geometry.clusterSizeBytes
        try qemuIO(
            image, "write -P 1 0 \(3 * cluster)", "write -P 2 \(step * 2) \(cluster)", "write -P 3 \(step * 4) 512",
            "write -P 4 \(step * 2 + 5 * cluster) \(2 * cluster)", "write -P 5 \(step) 512",
            "write -z \(8 * cluster) \(cluster)")
    }

    @Test("a sound image is sound, for us and for QEMU", arguments: TestGeometry.all)
    func sound(_ geometry: TestGeometry) throws {
        try makeImage(geometry)
        let report = try ImageCheck(path: image).run().report
        #expect(report.verdict == (try QEMUVerdict(of: image)))
        #expect(report.isSound && report.leakedClusters == 0)
        #expect(report.allocatedClusters == 8)
        #expect(report.imageEndFileOffset == (try ImageEditor(image).fileSizeBytes))
    }

    @Test func invalidEntriesAreNamedAndDropped() throws {
        try makeImage(TestGeometry.all[2])
        let editor = try ImageEditor(image)
        try editor.setL2Entry(0, 1, 12345)
        try editor.setL2Entry(0, 2, 12345)
        try editor.setFeatures(2)
        let report = try ImageCheck(path: image).run().report
        #expect(
            report.invalidList == [
                InvalidEntry(deviceRange: 65536..<196608, isL1: false, value: 12345, reason: .unaligned, count: 2)
            ])
        #expect(report.needsCheck)
        let result = try ImageCheck(path: image, repair: .all).run()
        #expect(result.repair?.droppedEntries == 2)
        #expect(result.report.isSound && !result.report.needsCheck)
        #expect(try editor.features == 0)
        #expect(try editor.l2Entry(0, 1) == 0)
    }

    @Test func leaksOnlyLeavesCorruptionAndItsLeaksAlone() throws {
        try makeImage(TestGeometry.all[2])
        let editor = try ImageEditor(image)
        try editor.setL2Entry(0, 1, 12345)
        let before = try readFile(image)
        let result = try ImageCheck(path: image, repair: .leaks).run()
        #expect(result.report.corruptions == 1 && result.report.leakedClusters == 1)
        #expect(result.repair?.leaksKept == .damaged)
        #expect(try readFile(image) == before)
    }

    @Test func leaksAreReallyGivenBack() throws {
        try makeImage(TestGeometry.all[2])
        let content = try SparseContent(of: image)
        try qemuIO(image, "write -P 9 10M 1M", "write -P 10 20M 64k", "write -P 11 30M 2M")
        let editor = try ImageEditor(image)
        for entry in 160..<176 { try editor.setL2Entry(0, entry, 0) }
        for entry in 480..<512 { try editor.setL2Entry(0, entry, 0) }
        #expect(try ImageCheck(path: image).run().report.leakedClusters == 48)
        let result = try ImageCheck(path: image, repair: .leaks).run()
        #expect(result.repair?.removedClusters == 32)
        #expect(result.repair?.punchedClusters == 16)
        // The file system may need a block or two for what it knows of a file with more holes.
        #expect(result.repair.map { $0.reclaimedBytes >= 3 << 20 - 64 << 10 } == true)
        #expect(result.report.leakedClusters == 16)
        #expect(try QEMUVerdict(of: image).leaks == 16)
        try editor.setL2Entry(0, 320, 0)
        #expect(try SparseContent(of: image) == content)
    }

    @Test func bothOwnersAreNamedAndEachGetsItsCopy() throws {
        try makeImage(TestGeometry.all[2])
        let editor = try ImageEditor(image)
        try editor.setL2Entry(0, 1, try editor.l2Entry(0, 0))
        let shared = try editor.l2Entry(0, 0)
        let report = try ImageCheck(path: image).run().report
        #expect(
            report.crossLinkList == [
                CrossLink(fileOffset: shared, owners: [.data(deviceOffset: 0), .data(deviceOffset: 65536)])
            ])
        // Never without being asked.
        let unasked = try ImageCheck(path: image, repair: .all).run()
        #expect(unasked.report.crossLinks == 1 && unasked.repair?.leaksKept == .damaged)
        let content = try SparseContent(of: image)
        let result = try ImageCheck(path: image, repair: .all, separatesCrossLinks: true).run()
        #expect(result.repair?.separatedClusters == 1)
        #expect(result.report.isSound)
        #expect(try SparseContent(of: image) == content)
        try qemuIO(image, "write -P 77 0 64k", "read -P 1 64k 64k")
    }

    /// A copy goes to the end of the file, which an entry of a table that was not yet judged may name.
    @Test func copiesAreNobodysButTheirOwners() throws {
        var broken = ImageBuilder.specimen()
        broken.l2(0, 5, broken.tables[1])
        broken.l2(1, 1, 11 * 65536)
        broken.l2(1, 2, 12 * 65536)
        try broken.write(to: image)
        let table = try readFile(image)[Int(broken.tables[1])..<Int(broken.tables[1] + 65536)]
        let result = try ImageCheck(path: image, repair: .all, separatesCrossLinks: true).run()
        #expect(result.report.isSound && result.report.leakedClusters == 0)
        #expect(result.repair?.separatedClusters == 1 && result.repair?.droppedEntries == 2)
        #expect(result.repair?.droppedList.map(\.deviceRange.lowerBound) == [1 << 30 + 65536, 1 << 30 + 131_072])
        #expect(try QEMUVerdict(of: image).corruptions == 0)
        // Whoever had the table as data has its bytes as they were.
        let copy = Int(try ImageEditor(image).l2Entry(0, 5))
        #expect(try readFile(image)[copy..<(copy + 65536)].elementsEqual(table))
        try qemuIO(image, "read -P 0 1073807360 64k", "read -P 4 1G 64k")
    }

    @Test func whatLooksLeakedUnderADroppedTableIsKept() throws {
        try makeImage(TestGeometry.all[2])
        let editor = try ImageEditor(image)
        let size = try editor.fileSizeBytes
        try editor.setL1Entry(1, try editor.l1Entry(1) + 512)
        let first = try ImageCheck(path: image, repair: .all).run()
        #expect(first.repair?.leaksKept == .tablesDropped)
        #expect(try editor.fileSizeBytes == size)
        let second = try ImageCheck(path: image, repair: .all).run()
        #expect(second.repair?.leaksKept == nil)
        #expect(second.report.isSound)
    }

    @Test func aSharedReadIsPossibleWhileQEMUWrites() throws {
        try makeImage(TestGeometry.all[2])
        let other = try OfflineImage(path: image, access: .readWrite)
        #expect(throws: ImageToolError.self) { try ImageCheck(path: image).run() }
        #expect(try ImageCheck(path: image, sharing: true).run().report.isSound)
        withExtendedLifetime(other) {}
    }
}
