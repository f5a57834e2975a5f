import QEDFormat
import Simulation
import TestSupport
import Testing

private let kibi: UInt64 = 1 << 10
private let mebi: UInt64 = 1 << 20
private let gibi: UInt64 = 1 << 30
private let tebi: UInt64 = 1 << 40
private let pebi: UInt64 = 1 << 50

@Suite struct GeometryTests {
    struct Row: Sendable {
        let cluster, table, entries, tableBytes, perL2, maximum: UInt64
    }

    static let rows = [
        Row(cluster: 4 * kibi, table: 2, entries: 1024, tableBytes: 8 * kibi, perL2: 4 * mebi, maximum: 4 * gibi),
        Row(cluster: 4 * kibi, table: 4, entries: 2048, tableBytes: 16 * kibi, perL2: 8 * mebi, maximum: 16 * gibi),
        Row(cluster: 4 * kibi, table: 16, entries: 8192, tableBytes: 64 * kibi, perL2: 32 * mebi, maximum: 256 * gibi),
        Row(cluster: 64 * kibi, table: 2, entries: 16384, tableBytes: 128 * kibi, perL2: gibi, maximum: 16 * tebi),
        Row(cluster: 64 * kibi, table: 4, entries: 32768, tableBytes: 256 * kibi, perL2: 2 * gibi, maximum: 64 * tebi),
        Row(cluster: 64 * kibi, table: 16, entries: 131_072, tableBytes: mebi, perL2: 8 * gibi, maximum: pebi),
        Row(cluster: mebi, table: 4, entries: 524_288, tableBytes: 4 * mebi, perL2: 512 * gibi, maximum: 256 * pebi),
        Row(
            cluster: 2 * mebi, table: 8, entries: 1 << 21, tableBytes: 16 * mebi, perL2: 4 * tebi,
            maximum: (1 << 63) - (1 << 30)),
    ]

    @Test("sizes follow from cluster and table size", arguments: rows)
    func sizes(row: Row) throws {
        let geometry = try QEDGeometry(clusterSizeBytes: row.cluster, tableSizeClusters: row.table)
        #expect(UInt64(geometry.entriesPerTable) == row.entries)
        #expect(geometry.tableSizeBytes == row.tableBytes)
        #expect(geometry.bytesPerL2Table == row.perL2)
        #expect(geometry.maximumImageSizeBytes == row.maximum)
        #expect(UInt64(geometry.pagesPerTable) * 4096 == row.tableBytes)
        #expect(geometry.bytesPerL2Page == row.cluster * 512)
    }

    @Test func standardIsWhatQEMUCreates() throws {
        #expect(try QEDGeometry(clusterSizeBytes: 65536, tableSizeClusters: 4) == QEDGeometry.standard)
    }

    @Test("cluster sizes outside the format", arguments: [0, 1, 2048, 4095, 4097, 5000, 1 << 27, 0xffff_ffff, .max])
    func badClusterSizes(bytes: UInt64) {
        #expect(throws: QEDFormatError.invalidClusterSize(bytes: bytes)) {
            try QEDGeometry(clusterSizeBytes: bytes, tableSizeClusters: 4)
        }
    }

    @Test("table sizes outside the format", arguments: [0, 3, 5, 17, 32, 0xffff_ffff, .max])
    func badTableSizes(clusters: UInt64) {
        #expect(throws: QEDFormatError.invalidTableSize(clusters: clusters)) {
            try QEDGeometry(clusterSizeBytes: 65536, tableSizeClusters: clusters)
        }
    }

    @Test func everyGeometryOfTheFormatIsEitherUsableOrHasTooLargeTables() throws {
        for clusterShift in 12...26 {
            for tableShift in 0...4 {
                let cluster: UInt64 = 1 << clusterShift
                let table: UInt64 = 1 << tableShift
                guard cluster * table <= 16 * mebi else {
                    #expect(throws: QEDFormatError.tableTooLarge(bytes: cluster * table)) {
                        try QEDGeometry(clusterSizeBytes: cluster, tableSizeClusters: table)
                    }
                    continue
                }
                let geometry = try QEDGeometry(clusterSizeBytes: cluster, tableSizeClusters: table)
                // The format's own formula, in 128 bits.
                let entries = UInt128(cluster) * UInt128(table) / 8
                #expect(UInt128(geometry.entriesPerTable) == entries)
                #expect(UInt128(geometry.bytesPerL2Table) == entries * UInt128(cluster))
                let maximum = min(entries * entries * UInt128(cluster), (UInt128(1) << 63) - (1 << 30))
                #expect(UInt128(geometry.maximumImageSizeBytes) == maximum)
                #expect(
                    geometry.requiredL1Entries(imageSizeBytes: geometry.maximumImageSizeBytes)
                        <= geometry.entriesPerTable)
            }
        }
    }

    @Test func workedExample() {
        let geometry = QEDGeometry.standard
        let position: UInt64 = 5_497_688_065
        #expect(geometry.l1Shift == 31)
        #expect(geometry.l1Index(ofDeviceOffset: position) == 2)
        #expect(geometry.l2Index(ofDeviceOffset: position) == 18352)
        #expect(geometry.offsetInCluster(ofDeviceOffset: position) == 4097)
        // Entry 18352 is the byte 146816 of the table: page 35, entry 432 of that page.
        let page = geometry.l2PageNumber(ofDeviceOffset: position)
        #expect(page == 2 * 64 + 35)
        #expect(geometry.indexInL2Page(ofDeviceOffset: position) == 432)
        #expect(geometry.l1Index(ofL2Page: page) == 2)
        #expect(geometry.offsetInTable(ofL2Page: page) == 35 * 4096)
    }

    @Test func translationAgreesWithDivision() throws {
        var random = SeededRandom(seed: 1)
        for row in Self.rows {
            let geometry = try QEDGeometry(clusterSizeBytes: row.cluster, tableSizeClusters: row.table)
            for _ in 0..<1000 {
                let offset = UInt64.random(in: 0..<geometry.maximumImageSizeBytes, using: &random)
                let page = geometry.l2PageNumber(ofDeviceOffset: offset)
                #expect(geometry.l1Index(ofDeviceOffset: offset) == Int(offset / row.perL2))
                #expect(geometry.l2Index(ofDeviceOffset: offset) == Int(offset / row.cluster % row.entries))
                #expect(geometry.offsetInCluster(ofDeviceOffset: offset) == offset % row.cluster)
                #expect(page == Int(offset / row.cluster / 512))
                #expect(geometry.indexInL2Page(ofDeviceOffset: offset) == Int(offset / row.cluster % 512))
                #expect(geometry.l1Index(ofL2Page: page) == geometry.l1Index(ofDeviceOffset: offset))
                #expect(geometry.deviceOffset(ofL2Page: page) == offset / row.cluster / 512 * 512 * row.cluster)
                let byteInTable = geometry.l2Index(ofDeviceOffset: offset) * 8
                #expect(Int(geometry.offsetInTable(ofL2Page: page)) == byteInTable / 4096 * 4096)
            }
        }
    }

    @Test func requiredL1EntriesRoundUp() {
        let geometry = QEDGeometry.standard
        #expect(geometry.requiredL1Entries(imageSizeBytes: 0) == 0)
        #expect(geometry.requiredL1Entries(imageSizeBytes: 512) == 1)
        #expect(geometry.requiredL1Entries(imageSizeBytes: 2 * gibi) == 1)
        #expect(geometry.requiredL1Entries(imageSizeBytes: 2 * gibi + 512) == 2)
        #expect(geometry.requiredL1Entries(imageSizeBytes: 64 * tebi) == 32768)
    }
}

@Suite struct QEMULimitationTests {
    /// The combinations QEMU opens: tables of two clusters or more, and 3c + 2t <= 69 for the logarithms of the sizes.
    @Test func preventsOpeningExactlyWhereQEMURefuses() throws {
        for clusterShift in 12...24 {
            for tableShift in 0...4 where clusterShift + tableShift <= 24 {
                let geometry = try QEDGeometry(clusterSizeBytes: 1 << clusterShift, tableSizeClusters: 1 << tableShift)
                let opens = tableShift >= 1 && 3 * clusterShift + 2 * tableShift <= 69
                #expect(geometry.qemuLimitation?.preventsOpening != opens, "\(clusterShift), \(tableShift)")
            }
        }
    }

    @Test func namesTheReason() throws {
        func limitation(_ clusterSizeBytes: UInt64, _ tableSizeClusters: UInt64) throws -> QEMULimitation? {
            try QEDGeometry(clusterSizeBytes: clusterSizeBytes, tableSizeClusters: tableSizeClusters).qemuLimitation
        }
        #expect(try limitation(65536, 1) == .tablesOfOneCluster)
        #expect(try limitation(4 * mebi, 4) == .maximumImageSizeWraps)
        #expect(try limitation(4 * kibi, 8) == .largeWritesDestroyNeighbours(requestSizeBytes: 4095 * 4096))
        #expect(try limitation(32 * kibi, 16) == .largeWritesDestroyNeighbours(requestSizeBytes: 32767 * 32768))
        #expect(try limitation(64 * kibi, 8) == .mappingToolsAbort)
        #expect(try limitation(128 * kibi, 2) == .mappingToolsAbort)
        #expect(try limitation(4 * kibi, 4) == nil)
        #expect(try limitation(32 * kibi, 4) == nil)
        #expect(try limitation(64 * kibi, 4) == nil)
    }
}
