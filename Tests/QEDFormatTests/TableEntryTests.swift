import QEDFormat
import Simulation
import TestSupport
import Testing

@Suite struct TableEntryTests {
    static let cluster: UInt64 = 65536

    /// 64 KiB clusters, tables of four, a header area of two clusters, a file of 100 clusters.
    let bounds = TableEntryBounds(geometry: .standard, headerAreaSizeBytes: 2 * cluster, fileSizeBytes: 100 * cluster)

    @Test func specialValues() {
        #expect(bounds.l2Entry(0) == .unallocated)
        #expect(bounds.l2Entry(1) == .zero)
        #expect(bounds.l1Entry(0) == .unallocated)
        #expect(bounds.l1Entry(1) == .invalid(.unaligned))
    }

    @Test(
        "values that are not aligned",
        arguments: [2, 0x800, 10 * cluster + 1, 10 * cluster + 512, 10 * cluster + 4096, .max] as [UInt64])
    func unaligned(value: UInt64) {
        #expect(bounds.l2Entry(value) == .invalid(.unaligned))
        #expect(bounds.l1Entry(value) == .invalid(.unaligned))
    }

    @Test func headerArea() {
        #expect(bounds.l2Entry(Self.cluster) == .invalid(.insideHeaderArea))
        #expect(bounds.l1Entry(Self.cluster) == .invalid(.insideHeaderArea))
        #expect(bounds.l2Entry(2 * Self.cluster) == .allocated(clusterFileOffset: 2 * Self.cluster))
        #expect(bounds.l1Entry(2 * Self.cluster) == .allocated(tableFileOffset: 2 * Self.cluster))
    }

    /// The last value wraps to zero when the cluster's or table's size is added.
    @Test(
        "values past the end", arguments: [100 * cluster, 1 << 40, 1 << 63, 0 &- 4 * cluster, 0 &- cluster] as [UInt64])
    func pastTheEnd(value: UInt64) {
        #expect(bounds.l2Entry(value) == .invalid(.pastEndOfFile))
        #expect(bounds.l1Entry(value) == .invalid(.pastEndOfFile))
    }

    @Test func lastCluster() {
        #expect(bounds.l2Entry(99 * Self.cluster) == .allocated(clusterFileOffset: 99 * Self.cluster))
    }

    @Test func tableOfWhichOnlyTheFirstClustersAreInside() {
        #expect(bounds.l1Entry(96 * Self.cluster) == .allocated(tableFileOffset: 96 * Self.cluster))
        for index: UInt64 in 97...99 {
            #expect(bounds.l1Entry(index * Self.cluster) == .invalid(.pastEndOfFile))
        }
    }

    /// QEMU's rule: the length is rounded up to 512, then down to the cluster size.
    @Test func fileThatEndsInsideACluster() {
        func lastEntry(missingBytes: UInt64) -> L2Entry {
            TableEntryBounds(
                geometry: .standard, headerAreaSizeBytes: Self.cluster, fileSizeBytes: 10 * Self.cluster - missingBytes
            ).l2Entry(9 * Self.cluster)
        }
        #expect(lastEntry(missingBytes: 0) == .allocated(clusterFileOffset: 9 * Self.cluster))
        #expect(lastEntry(missingBytes: 511) == .allocated(clusterFileOffset: 9 * Self.cluster))
        #expect(lastEntry(missingBytes: 512) == .invalid(.pastEndOfFile))
    }

    @Test func endOfClustersIsWhereTheNextOneGoes() {
        func end(_ fileSizeBytes: UInt64) -> UInt64 {
            TableEntryBounds(geometry: .standard, headerAreaSizeBytes: Self.cluster, fileSizeBytes: fileSizeBytes)
                .endOfClustersFileOffset
        }
        #expect(end(0) == 0)
        #expect(end(Self.cluster) == Self.cluster)
        #expect(end(Self.cluster + 512) == Self.cluster)
        #expect(end(2 * Self.cluster - 511) == 2 * Self.cluster)
        #expect(end(.max) == 1 << 63)
    }

    @Test("files too short for anything", arguments: [0, 1, 512, 65535, 3 * cluster] as [UInt64])
    func shortFile(fileSizeBytes: UInt64) {
        let bounds = TableEntryBounds(
            geometry: .standard, headerAreaSizeBytes: Self.cluster, fileSizeBytes: fileSizeBytes)
        for index: UInt64 in 1...8 {
            #expect(bounds.l1Entry(index * Self.cluster) == .invalid(.pastEndOfFile))
        }
        #expect(bounds.l2Entry(3 * Self.cluster) == .invalid(.pastEndOfFile))
    }

    /// Against the rules spelled out in 128 bits, where nothing wraps.
    @Test func randomEntriesAgreeWithTheRules() throws {
        var random = SeededRandom(seed: 4)
        var seen = Set<String>()
        for _ in 0..<50_000 {
            let builder = HeaderBuilder.randomValid(using: &random)
            let header = try builder.parsed()
            let bounds = TableEntryBounds(header: header, fileSizeBytes: builder.fileSizeBytes)
            let clusterSize = header.geometry.clusterSizeBytes
            var value: UInt64
            switch Int.random(in: 0..<4, using: &random) {
            case 0: value = random.next()
            case 1: value = random.next() & ~(clusterSize - 1)
            case 2:
                value = UInt64.random(in: 0...4, using: &random) * clusterSize
                value += UInt64.random(in: 0...1, using: &random)
            default:
                value = builder.fileSizeBytes & ~(clusterSize - 1)
                value &-= UInt64.random(in: 0...20, using: &random) * clusterSize
            }
            let roundedLength = (UInt128(builder.fileSizeBytes) + 511) / 512 * 512
            func expectation(sizeBytes: UInt64) -> InvalidEntryReason? {
                if value % clusterSize != 0 { return .unaligned }
                if value < header.headerAreaSizeBytes { return .insideHeaderArea }
                return UInt128(value) + UInt128(sizeBytes) > roundedLength ? .pastEndOfFile : nil
            }
            switch bounds.l2Entry(value) {
            case .unallocated: #expect(value == 0)
            case .zero: #expect(value == 1)
            case .allocated(let offset):
                #expect(offset == value)
                #expect(expectation(sizeBytes: clusterSize) == nil)
                seen.insert("allocated")
            case .invalid(let reason):
                #expect(expectation(sizeBytes: clusterSize) == reason)
                seen.insert("\(reason)")
            }
            switch bounds.l1Entry(value) {
            case .unallocated: #expect(value == 0)
            case .allocated(let offset):
                #expect(offset == value)
                #expect(expectation(sizeBytes: header.geometry.tableSizeBytes) == nil)
            case .invalid(let reason):
                #expect(expectation(sizeBytes: header.geometry.tableSizeBytes) == reason)
            }
        }
        #expect(seen.count == 4)
    }
}
