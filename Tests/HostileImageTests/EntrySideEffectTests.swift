import Foundation
import QEDChain
import QEDEngine
import TestSupport
import Testing

/// Rows of the tables whose point is what else happens, or does not.
@Suite struct EntrySideEffectTests {
    let directory: TemporaryDirectory
    var path: String { directory.path("image.qed") }
    private let cluster: UInt64 = 65536
    private let end: UInt64 = 11 * 65536

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    private func write(_ change: (inout ImageBuilder) -> Void) throws {
        var image = ImageBuilder.specimen()
        change(&image)
        try image.write(to: path)
    }

    private func expectSound(leaks: UInt64 = 0, sourceLocation: SourceLocation = #_sourceLocation) throws {
        #expect(try ours("check", "-q", "image.qed").status == (leaks == 0 ? 0 : 3), sourceLocation: sourceLocation)
        let verdict = try QEMUVerdict(of: path)
        #expect(verdict.corruptions == 0 && verdict.leaks == leaks, sourceLocation: sourceLocation)
    }

    // MARK: The end of the file

    /// A repair, ours as QEMU's, drops the whole cluster. Whoever makes the file longer first keeps what is there.
    @Test("row 37: how to keep what is left of a cut cluster", arguments: [true, false])
    func cutCluster(isTable: Bool) throws {
        try write {
            if isTable {
                // A table of the third GiB whose second half is missing; its first entry names the data at 1 GiB.
                $0.l1(2, end)
                $0.putWord(10 * cluster, at: end)
                $0.l1(1, 0)
                $0.header.fileSizeBytes += cluster
            } else {
                $0.header.fileSizeBytes -= 4096
            }
        }
        let hint = "truncate -s \(isTable ? end + 2 * cluster : end) image.qed"
        #expect(try ours("check", "image.qed").output.contains(hint))
        let json = try ours("check", "--output", "json", "image.qed")
        #expect(json.output.contains("\"file-size-to-keep-cut-clusters\": \(isTable ? end + 2 * cluster : end)"))
        try require(["truncate", "-s", "\(isTable ? end + 2 * cluster : end)", path])
        let offset = isTable ? "2G" : "1G"
        expectSuccess(try ours("io", "image.qed", "read -P 4 \(offset) 60k", "write -P 5 1500M 4k"))
        try expectSound(leaks: isTable ? 2 : 0)
        // Where nothing is cut there is nothing to keep.
        #expect(try !ours("check", "image.qed").output.contains("truncate"))
    }

    @Test("row 39: what lies behind the last cluster is never read", arguments: [1, 1000, 65535, 65536, 200_000])
    func tail(bytes: UInt64) throws {
        try write {
            $0.put(Array(repeating: 0xee, count: Int(bytes)), at: end)
            $0.header.fileSizeBytes += bytes
        }
        expectSuccess(
            try ours(
                "io", "image.qed", "write -P 7 200M 512", "write -P 7 2G 512", "read -P 7 200M 512",
                "read -P 0 209715712 1048064", "read -P 0 2147484160 1048064"))
        // QEMU, too, counts sectors: 65535 bytes are a cluster.
        try expectSound(leaks: (bytes + 511) / 512 * 512 / cluster)
        try require(["qemu-io", "-f", "qed", path, "-c", "read -P 0 209715712 1048064"])
    }

    /// The next cluster would be allocated where the entry points.
    @Test("row 49: an entry at the end of the file is found before anything is allocated")
    func staleEntry() throws {
        try write { $0.l2(1, 5, end) }
        let before = try readFile(path)
        expectRefusal(try ours("io", "image.qed", "write 200M 4k"), 2, "1 table entries point where no cluster can be")
        #expect(try readFile(path) == before)
        #expect(try ours("check", "-q", "-r", "all", "image.qed").status == 0)
        expectSuccess(try ours("io", "image.qed", "write -P 7 200M 4k", "read -P 0 1073999872 64k"))
        try expectSound()
    }

    // MARK: Behind the end of the image

    @Test("row 47: what lies behind the end never comes to light")
    func entriesBehindTheEnd() throws {
        try write { $0.header.imageSize = 2 * cluster }
        expectSuccess(try ours("resize", "-q", "image.qed", "3G"))
        expectSuccess(try ours("io", "image.qed", "read -P 2 64k 64k", "read -P 0 128k 64k", "read -P 0 1G 64k"))
        #expect(try ours("check", "-q", "image.qed").status != 2)
        #expect(try QEMUVerdict(of: path).corruptions == 0)
    }

    @Test("row 47: bad entries behind the end are found, and hurt nobody who reads")
    func badEntriesBehindTheEnd() throws {
        try write {
            $0.header.imageSize = 2 * cluster
            $0.l2(0, 100, 12345)
            $0.l1(100, 12345)
        }
        expectSuccess(try ours("io", "image.qed", "read -P 1 0 64k", "read -P 2 64k 64k"))
        #expect(try ours("check", "-q", "image.qed").status == 2)
        #expect(try ours("check", "-q", "-r", "all", "image.qed").status == 0)
    }

    @Test("row 48: the tail of the last cluster is zeros when the image grows")
    func dirtyTail() throws {
        try write { $0.header.imageSize = 2 * cluster + 512 }
        expectSuccess(try ours("resize", "-q", "image.qed", "1G"))
        expectSuccess(try ours("io", "image.qed", "read -P 3 128k 512", "read -P 0 131584 65024"))
    }

    // MARK: NEED_CHECK

    private static let leftByACrash: @Sendable (inout ImageBuilder) -> Void = {
        $0.header.features = 2
        $0.l2(0, 5, 12345)
        $0.l2(1, 5, 11 * 65536)
        $0.l2(1, 6, 1 << 40)
    }

    @Test("row 50: bad entries under NEED_CHECK are dropped when the image is opened")
    func needCheckIsHonoured() throws {
        try write(Self.leftByACrash)
        expectSuccess(try ours("io", "image.qed", "read -P 0 320k 64k", "read -P 4 1G 64k", "write -P 7 1074069504 4k"))
        #expect(try ImageEditor(path).features == 0)
        try expectSound()
        // For the log of a device's server.
        try write(Self.leftByACrash)
        let engine = try LocalEngine(path: path)
        #expect(engine.image.droppedEntries == 3)
        try engine.close()
    }

    @Test("row 51: and left alone when it is only read")
    func needCheckReadOnly() throws {
        try write(Self.leftByACrash)
        let before = try readFile(path)
        expectSuccess(try ours("io", "image.qed", "read -P 1 0 64k", "read -P 4 1G 64k"))
        for offset in [5 * cluster, 1 << 30 + 5 * cluster, 1 << 30 + 6 * cluster] {
            expectRefusal(try ours("io", "image.qed", "read \(offset) 4k"), 1, "Input/output error")
        }
        #expect(try readFile(path) == before)
    }

    /// QEMU opens it, and its NEED_CHECK is gone afterwards.
    @Test("row 52: clusters with two owners are not written, and NEED_CHECK stays")
    func needCheckAndCrossLinks() throws {
        try write {
            $0.header.features = 2
            $0.l2(0, 1, 5 * cluster)
        }
        let before = try readFile(path)
        expectRefusal(try ours("io", "image.qed", "write 200M 4k"), 2, "have more than one owner")
        #expect(try ours("check", "-q", "-r", "all", "image.qed").status == 2)
        #expect(try readFile(path) == before)
    }

    @Test("row 53: L1 entries past the end, or across it, go like any other", arguments: [10, 11, 1000] as [UInt64])
    func needCheckAndTables(place: UInt64) throws {
        try write {
            $0.header.features = 2
            $0.l1(2, place * cluster)
        }
        expectSuccess(try ours("io", "image.qed", "read -P 0 2G 64k", "read -P 4 1G 64k", "write -P 7 2G 4k"))
        #expect(try ImageEditor(path).features == 0)
        try expectSound()
    }

    // MARK: Size

    /// 268 million clusters that nobody names: bounded in memory like every run here.
    @Test("row 55: a sparse file of 1 TiB with clusters of 4 KiB")
    func hugeSparseFile() throws {
        var image = ImageBuilder.empty(clusterSize: 4096, tableSize: 2)
        image.header.fileSizeBytes = 1 << 40
        try image.write(to: path)
        let result = try ours("check", "image.qed")
        #expect(result.status == 3 && result.output.contains("268435453 leaked clusters"))
        expectSuccess(try ours("io", "image.qed", "write -P 7 0 4k", "read -P 7 0 4k", "read -P 0 4k 1M"))
        #expect(try ImageEditor(path).l2Entry(0, 0) >= 1 << 40)
        #expect(try ours("check", "-q", "-r", "all", "image.qed").status == 3)
        #expect(try ours("compact", "image.qed").status == 0)
        #expect(try ImageEditor(path).fileSizeBytes == (1 + 2 + 2 + 1) * 4096)
        try expectSound()
    }

    /// To read them would take half an hour, and shows zeros. Bounded in time like every run here.
    @Test("65 534 tables that are holes of a sparse file of 1 TiB")
    func tablesInHoles() throws {
        let tableBytes: UInt64 = 16 << 20
        var image = ImageBuilder.empty(clusterSize: 1 << 20, tableSize: 16)
        image.header.fileSizeBytes = 1 << 40
        image.header.features = 2
        let tables = Int((1 << 40) / tableBytes) - 2
        for index in 0..<tables { image.l1(UInt64(index), (1 << 20) + UInt64(index + 1) * tableBytes) }
        try image.write(to: path)
        #expect(try ours("check", "image.qed").output.contains("15 leaked clusters"))
        expectSuccess(try ours("io", "image.qed", "write -P 7 0 4k", "read -P 7 0 4k", "read -P 0 4k 1M"))
        #expect(try ImageEditor(path).features == 0)
        // Nothing was cut off, though most of the tables were not read.
        #expect(try ImageEditor(path).l2Entry(0, 0) == 1 << 40)
        #expect(try ours("compact", "image.qed").status == 2)
        #expect(try ours("check", "-r", "leaks", "image.qed").output.contains("left alone"))
        // What shares clusters is looked into in other ways.
        try ImageEditor(path).setL2Entry(0, 1, try ImageEditor(path).l1Entry(1))
        #expect(try ours("check", "-r", "all", "image.qed").status == 2)
        #expect(try ours("check", "-q", "-r", "all", "--repair-cross-links", "image.qed").status == 3)
    }

    /// QEMU's tools abort on these (a run of 4 GiB has the length 0 in 32 bits).
    @Test("row 56: uniform runs of 4 GiB and more")
    func uniformRuns() throws {
        try ImageBuilder.empty(clusterSize: 65536, tableSize: 16, imageSize: 24 << 30).write(to: path)
        expectSuccess(try ours("io", "image.qed", "write -P 7 0 64k", "write -z 8G 8G"))
        try FileManager.default.copyItem(atPath: path, toPath: directory.path("other.qed"))
        let map = try ours("map", "--output", "json", "image.qed")
        expectSuccess(map)
        let extents = try #require(try JSONSerialization.jsonObject(with: Data(map.output.utf8)) as? [[String: Any]])
        #expect(extents.reduce(0) { $0 + ($1["length"] as? UInt64 ?? 0) } == 24 << 30)
        expectSuccess(try ours("io", "image.qed", "map"))
        #expect(try ours("compare", "image.qed", "other.qed").status == 0)
        #expect(try ours("compare", "-s", "image.qed", "other.qed").status == 0)
        expectSuccess(try ours("measure", "image.qed"))
        expectSuccess(try ours("convert", "-O", "qed", "image.qed", "copy.qed"))
        #expect(try ours("compare", "image.qed", "copy.qed").status == 0)
    }

    /// QEMU links a cluster too many, or writes past its memory.
    @Test("row 57: one request for all clusters of a table, and their neighbours")
    func hugeRequests() throws {
        try ImageBuilder.empty(clusterSize: 4096, tableSize: 16, imageSize: 1 << 30).write(to: path)
        expectSuccess(
            try ours(
                "io", "image.qed", "write -P 7 0 4k", "write -P 8 16M 4k", "write -P 9 32M 4k", "write -z 0 16M",
                "read -P 8 16M 4k", "write -z 4k 16M", "read -P 0 16M 4k", "write -z 0 32M", "read -P 9 32M 4k",
                "write -P 6 0 33550336", "read -P 6 0 33550336", "read -P 0 33550336 4k", "read -P 9 32M 4k",
                "discard 0 1G", "read -P 0 0 64M"))
        #expect(try ours("check", "-q", "image.qed").status == 0)
        #expect(try QEMUVerdict(of: path).corruptions == 0)
    }
}
