import Foundation
import TestSupport
import Testing

/// Images whose tables would take more memory than there is. Every run here has 256 MiB of address space.
@Suite struct TableMemoryTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: [String]) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    /// Tables of 16 MiB, so that an image of 4 EiB has two million of them.
    private func largestTables() -> ImageBuilder {
        ImageBuilder.empty(clusterSize: 1 << 20, tableSize: 16, imageSize: 1 << 62)
    }

    /// A word for each of the 4096 pages of each table that is used would be 219 MiB, beside what else there is.
    @Test("7 000 L1 entries for one table, all of them read")
    func oneTableForAll() throws {
        var image = largestTables()
        image.header.fileSizeBytes += (16 + 1) << 20
        image.tables = [17 << 20]
        image.l2(0, 0, 33 << 20)
        image.fill(cluster: 33, 7)
        for index in 0..<7_000 as Range<UInt64> { image.l1(index, 17 << 20) }
        try image.write(to: directory.path("image.qed"))
        let bytesPerTable: UInt64 = 1 << 41
        let reads = (0..<7_000 as Range<UInt64>).map { "read -q -P 7 \($0 * bytesPerTable) 4096" }
        // Those that come too late for their words are read again, and the first ones still.
        let again = ([0, 6_999, 6_998, 1] as [UInt64]).map { "read -q -P 7 \($0 * bytesPerTable) 64k" }
        let result = try ours(["io", "image.qed"] + reads + again)
        #expect(result.status == 0, "\(result.errors)")
        // As a backing file it is not checked either.
        var overlay = ImageBuilder.empty(clusterSize: 65536, tableSize: 4, imageSize: 1 << 40)
        overlay.setBackingFile("image.qed", isRaw: false)
        try overlay.write(to: directory.path("overlay.qed"))
        #expect(try ours(["io", "overlay.qed", "read -P 7 0 64k", "write -P 8 4k 4k", "read -P 7 0 4k"]).status == 0)
    }

    @Test("a chain of 200 files with L1 tables of 16 MiB")
    func largeTablesInAChain() throws {
        for number in 0..<200 {
            var image = largestTables()
            if number < 199 { image.setBackingFile("\(number + 1).qed", isRaw: false) }
            try image.write(to: directory.path("\(number).qed"))
        }
        for arguments in [["io", "0.qed", "read 0 4k"], ["map", "-s", "0", "-l", "4k", "0.qed"]] {
            let result = try ours(arguments)
            #expect(result.status == 2 && result.errors.contains("L1 tables"), "\(result.status): \(result.errors)")
        }
        // Two of the largest are held.
        #expect(try ours(["io", "198.qed", "read -P 0 0 4k"]).status == 0)
    }
}
