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

    /// Of an image of 4 KiB clusters: the L1 table's entry 5 names the cluster of guest offset 0, which no table can be in.
    private func makeDataATable() throws -> (editor: ImageEditor, data: UInt64) {
        try makeImage(TestGeometry.all[0])
        let editor = try ImageEditor(image)
        let data = try editor.l2Entry(0, 0)
        try editor.setL1Entry(5, data)
        // So that it is judged before the table whose data it is.
        try editor.setL1Entry(6, try editor.l1Entry(0))
        try editor.setL1Entry(0, 0)
        return (editor, data)
    }

    @Test("a table that may be data is not repaired in place") func dataIsNoTable() throws {
        let (editor, data) = try makeDataATable()
        let pattern: UInt64 = 0x0101_0101_0101_0101
        let result = try ImageCheck(path: image, repair: .all).run()
        #expect(result.report.crossLinks > 0 && result.report.invalidEntries > 0)
        for word in 0..<512 as Range<UInt64> { #expect(try editor.word(at: data + word * 8) == pattern) }

        let separated = try ImageCheck(path: image, repair: .all, separatesCrossLinks: true).run()
        #expect(separated.report.isSound)
        #expect(separated.repair.map { $0.droppedEntries > 0 } == true)
        #expect(try editor.l2Entry(6, 0) == data)
        for word in 0..<512 as Range<UInt64> { #expect(try editor.word(at: data + word * 8) == pattern) }
    }

    @Test("entries past the end do not come to name the copies that are put there") func copiesAreNobodyElses() throws {
        try makeImage(TestGeometry.all[0])
        let editor = try ImageEditor(image)
        // An entry of table 0 names a cluster of table 2, so that table 2 is not looked into; its bad entry is.
        try editor.setL2Entry(0, 1, try editor.l1Entry(2))
        try editor.setL2Entry(2, 7, try editor.fileSizeBytes)
        let result = try ImageCheck(path: image, repair: .all, separatesCrossLinks: true).run()
        #expect(result.report.isSound, "\(result)")
        #expect(result.repair?.droppedEntries == 1)
        #expect(try editor.l2Entry(2, 7) == 0)
    }

    @Test func copiesWithoutEndAreNotMade() throws {
        try makeImage(TestGeometry.all[0])
        let editor = try ImageEditor(image)
        let table = try editor.l1Entry(0)
        for entry in 12..<400 { try editor.setL2Entry(0, entry, try editor.l2Entry(0, 0)) }
        for index in 6..<400 { try editor.setL1Entry(index, table) }
        let before = try readFile(image)
        let result = try ImageCheck(path: image, repair: .all, separatesCrossLinks: true).run()
        #expect(result.repair?.crossLinksKept == true)
        #expect(result.repair?.separatedClusters == 0)
        #expect(result.report.crossLinks > 0)
        #expect(try readFile(image) == before)
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
