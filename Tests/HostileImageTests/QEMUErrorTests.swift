import Foundation
import TestSupport
import Testing

/// Where QEMU's judgement differs from ours, and is wrong: each difference with its proof.
@Suite struct QEMUErrorTests {
    let directory: TemporaryDirectory
    var path: String { directory.path("image.qed") }

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    /// Its test of a table's range takes the last cluster of the table for the one behind it.
    @Test("tables of one cluster are never opened")
    func tablesOfOneCluster() throws {
        var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 1, imageSize: 1 << 20)
        image.tables = [8192]
        image.header.fileSizeBytes = 4 * 4096
        image.l1(0, 8192)
        image.l2(0, 0, 3 * 4096)
        image.fill(cluster: 3, 5)
        try image.write(to: path)
        // Header, L1, L2 and data fill the file, each in a cluster of its own.
        let truth = try StructureTruth(of: path)
        #expect(truth.corruptions == 0 && truth.leaks == 0 && truth.fileClusters == 4)
        let result = try run(["qemu-img", "check", "-f", "qed", path])
        #expect(result.status == 1 && result.errors.contains("QED table offset is invalid"))
        #expect(try ours("check", "image.qed").status == 0)
        expectSuccess(try ours("io", "image.qed", "read -P 5 0 4k"))
    }

    /// The largest image that its tables can map is computed modulo 2^64.
    @Test("images of large geometries are never opened", arguments: [(22, 2), (23, 1)])
    func largeGeometries(clusterShift: UInt64, tableShift: UInt64) throws {
        try ImageBuilder.empty(clusterSize: 1 << clusterShift, tableSize: 1 << tableShift).write(to: path)
        let entries = Double(sign: .plus, exponent: Int(clusterShift + tableShift - 3), significand: 1)
        let maximum = entries * entries * Double(1 << clusterShift)
        #expect(maximum >= 0x1p64 && maximum > 0x1p30)
        let result = try run(["qemu-img", "check", "-f", "qed", path])
        #expect(result.status == 1 && result.errors.contains("QED image size is invalid"))
        #expect(try ours("check", "image.qed").status == 0)
    }

    /// It divides the file's length by (cluster size - 1).
    @Test(
        "leaks that are none: one for each (cluster size - 1) clusters",
        arguments: [4000, 4096, 8192, 10_000] as [UInt64])
    func falseLeaks(dataClusters: UInt64) throws {
        let cluster: UInt64 = 4096
        var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 16)
        let tables = (dataClusters + 8191) / 8192
        var position: UInt64 = 17 * cluster
        for table in 0..<tables {
            image.l1(table, position)
            image.tables.append(position)
            position += 16 * cluster
        }
        for number in 0..<dataClusters {
            image.l2(Int(number / 8192), number % 8192, position)
            position += cluster
        }
        image.header.fileSizeBytes = position
        try image.write(to: path)
        let clusters = position / cluster
        // Every cluster of the file is named here, once: header, tables and data add up to it.
        #expect(1 + 16 + tables * 16 + dataClusters == clusters)
        #expect(try StructureTruth(of: path).leaks == 0)
        let result = try run(["qemu-img", "check", "-f", "qed", "--output=json", path])
        let object = try #require(try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any])
        #expect(object["leaks"] as? UInt64 ?? 0 == clusters / 4095)
        #expect(try ours("check", "image.qed").status == 0)
    }

    /// Neither `-r leaks` nor `-r all` gives a leaked cluster back; both drop invalid entries.
    @Test("what its repairs do", arguments: ["leaks", "all"])
    func repairs(what: String) throws {
        var image = ImageBuilder.specimen()
        image.l2(0, 1, 12345)
        image.header.fileSizeBytes += 2 * 65536
        try image.write(to: path)
        #expect(try run(["qemu-img", "check", "-q", "-f", "qed", "-r", what, path]).status == 3)
        #expect(try ImageEditor(path).l2Entry(0, 1) == 0)
        #expect(try ImageEditor(path).fileSizeBytes == 13 * 65536)
        // Ours keeps to its word.
        try image.write(to: path)
        #expect(try ours("check", "-q", "-r", what, "image.qed").status == (what == "leaks" ? 2 : 3))
        #expect(try ImageEditor(path).l2Entry(0, 1) == (what == "leaks" ? 12345 : 0))
        #expect(try ImageEditor(path).fileSizeBytes == (what == "leaks" ? 13 : 11) * 65536)
    }

    /// An image with clusters of two owners is opened for writing, and its NEED_CHECK is gone afterwards.
    @Test("NEED_CHECK that disappears with the damage still there")
    func needCheckIsLost() throws {
        var image = ImageBuilder.specimen()
        image.header.features = 2
        image.l2(0, 1, 5 * 65536)
        try image.write(to: path)
        try require(["qemu-io", "-f", "qed", path, "-c", "read 0 4k"])
        #expect(try ImageEditor(path).features == 0)
        #expect(try ImageEditor(path).l2Entry(0, 0) == ImageEditor(path).l2Entry(0, 1))
        // So a clear bit proves nothing to us.
        expectRefusal(try ours("io", "image.qed", "write 200M 4k"), 2, "have more than one owner")
    }

    @Test("NEED_CHECK is never shown")
    func needCheckIsNotShown() throws {
        var image = ImageBuilder.specimen()
        image.header.features = 2
        try image.write(to: path)
        let theirs = try requireJSON(["qemu-img", "info", "--output=json", path])
        #expect(theirs["dirty-flag"] as? Bool == false)
        #expect(try ours("info", "image.qed").output.contains("need check: yes"))
    }

    /// The header itself, in a header area of no clusters, counts as leaked.
    @Test("a header area of no clusters is opened")
    func headerSizeZero() throws {
        var image = ImageBuilder.specimen()
        image.header.headerSize = 0
        try image.write(to: path)
        let verdict = try QEMUVerdict(of: path)
        #expect(verdict.leaks == 1 && verdict.corruptions == 0)
        #expect(try readFile(path).starts(with: [0x51, 0x45, 0x44, 0]))
        expectRefusal(try ours("check", "image.qed"), 1, "the header area is 0 clusters")
    }
}
