import BlockStorage
import QEDEngine
import QEDFormat

/// One walk over all tables of an image that gives every cluster its owner.
///
/// *Fast:* several workers read the tables in the order in which they lie in the file, and what is wrong is counted.
/// Enough for a sound image, where the order does not matter. *Exact:* one table after the other in the order of the L1
/// table, as QEMU does it, so that both blame the same entries; what is wrong is listed, and on request set to 0. Tables
/// that share a cluster are not changed: it may be somebody's data.
///
/// Memory: the L1 table (16 MiB at most), one bit per cluster, and a piece of a table for each worker.
final class CheckPass<S: Storage>: @unchecked Sendable {
    // SAFETY: all tasks of a pass run on the thread of the storage's ring; between two awaits nothing else runs.
    enum Mode: Equatable {
        case fast
        case exact(dropsInvalidEntries: Bool)
    }

    let structure: ImageStructure<S>
    let mode: Mode
    private(set) var owners: ClusterOwnership
    private(set) var report = CheckReport()
    /// What was set to 0.
    private(set) var dropped = InvalidEntries()
    private var invalid = InvalidEntries()
    /// What was not read of the tables. Where that is anything, what looks leaked need not be.
    private(set) var holes = TableHoles()
    /// Clusters that were named twice, for the search of their owners.
    private(set) var twiceOwned: [UInt64] = []
    private var l1: [UInt64] = []
    private var order: [UInt32] = []
    private var next = 0
    private let progress: (@Sendable (Double) -> Void)?

    private let shared: SharedClusters<S>?
    private let isExact: Bool
    private let geometry: QEDGeometry
    private let bounds: TableEntryBounds

    private static var workerCount: Int { 16 }
    private static var pieceBytes: Int { 1 << 20 }

    /// - Parameter shared: the clusters with several owners, where there are any and entries are dropped.
    init(
        _ structure: ImageStructure<S>, mode: Mode, sparing shared: SharedClusters<S>? = nil,
        progress: (@Sendable (Double) -> Void)? = nil
    ) throws(ImageOpenError) {
        self.structure = structure
        self.mode = mode
        self.shared = shared
        isExact = mode != .fast
        self.progress = progress
        owners = try structure.noOwners()
        geometry = structure.geometry
        bounds = structure.bounds
    }

    func run() async throws(StorageError) {
        let header = structure.header
        report.fileSizeBytes = structure.fileSizeBytes
        report.needsCheck = header.needsCheck
        report.totalClusters = (header.imageSizeBytes + geometry.clusterMask) >> geometry.clusterShift
        claim(header.l1TableFileOffset, clusters: geometry.tableSizeClusters)
        l1 = try await structure.readL1()
        try await sortTables()

        let workers = mode == .fast ? min(CheckPass.workerCount, order.count) : 1
        var failure: StorageError?
        await withTaskGroup(of: StorageError?.self) { group in
            for _ in 0..<workers {
                group.addTask {
                    do throws(StorageError) { try await self.work() } catch { return error }
                    return nil
                }
            }
            for await result in group { failure = failure ?? result }
        }
        // The pass may be kept for what it has found.
        l1 = []
        order = []
        if let failure { throw failure }
        report.invalidEntries = invalid.count
        report.invalidList = invalid.list
        report.imageEndFileOffset = owners.end << geometry.clusterShift
        let headerClusters = min(header.headerSizeClusters, owners.clusterCount)
        report.leakedClusters =
            owners.clusterCount - headerClusters - owners.ownedCount(in: headerClusters..<owners.clusterCount)
    }

    /// Judges the L1 entries and puts the tables into the order in which they are read.
    private func sortTables() async throws(StorageError) {
        let drops = mode == .exact(dropsInvalidEntries: true)
        var droppedIndexes: [Int] = []
        for (index, value) in l1.enumerated() {
            switch bounds.l1Entry(value) {
            case .unallocated: continue
            case .allocated: order.append(UInt32(index))
            case .invalid(let reason):
                invalid.note(l1Entry: value, reason, index, structure.header)
                noteCut(value, reason, byteCount: geometry.tableSizeBytes)
                if isSabotaged(.signedEntry) { _ = Int(value) }
                guard drops else { continue }
                dropped.note(l1Entry: value, reason, index, structure.header)
                droppedIndexes.append(index)
            }
        }
        if mode == .fast { order.sort { l1[Int($0)] < l1[Int($1)] } }
        for index in droppedIndexes {
            l1[index] = 0
            try await structure.writeEntry(0, at: structure.header.l1TableFileOffset + UInt64(index * 8))
        }
    }

    private func work() async throws(StorageError) {
        let pieceBytes = min(CheckPass.pieceBytes, Int(geometry.tableSizeBytes))
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: pieceBytes, alignment: QEDGeometry.l2PageSizeBytes)
        defer { buffer.deallocate() }
        while next < order.count {
            let index = Int(order[next])
            next += 1
            // A table that shares its clusters is no table to trust the entries of.
            guard claim(l1[index], clusters: geometry.tableSizeClusters) == 0 else { continue }
            try await check(table: index, through: buffer, pieceBytes: pieceBytes)
            progress?(Double(next) / Double(order.count))
        }
    }

    private func check(
        table l1Index: Int, through buffer: UnsafeMutableRawPointer, pieceBytes: Int
    ) async throws(StorageError) {
        let drops = mode == .exact(dropsInvalidEntries: true) && !(shared?.hasTable(at: l1[l1Index]) ?? false)
        var previous: UInt64 = 0
        var done: UInt64 = 0
        while let place = holes.nextPiece(
            structure.storage, ofTableAt: l1[l1Index], geometry, from: done, pieceBytes: UInt64(pieceBytes))
        {
            done = place
            let fileOffset = l1[l1Index] + done
            do throws(StorageError) {
                try await structure.storage.readSectors(into: buffer, byteCount: pieceBytes, fileOffset: fileOffset)
            } catch {
                report.unreadableTables += 1
                return
            }
            let firstCluster = UInt64(l1Index) << geometry.tableEntriesShift + done / 8
            let entries = buffer.assumingMemoryBound(to: UInt64.self)
            let invalid = tally(entries, count: pieceBytes / 8, firstCluster, drops: drops, previous: &previous)
            if drops && !(isSabotaged(.skipTable) && next == order.count) {
                for indexes in invalid {
                    for index in indexes { entries[index] = 0 }
                    try await structure.writeEntries(indexes, of: buffer, at: fileOffset)
                }
            }
            done += UInt64(pieceBytes)
        }
    }

    /// Counts and claims what the entries name. Entries that continue each other, as a table written in order has them,
    /// are taken together.
    /// - Parameters:
    ///   - firstCluster: of the device: what the first entry maps.
    ///   - previous: the last allocated entry of the table so far; 0: none.
    /// - Returns: the entries that cannot be right.
    private func tally(
        _ entries: UnsafePointer<UInt64>, count: Int, _ firstCluster: UInt64, drops: Bool, previous: inout UInt64
    ) -> [ClosedRange<Int>] {
        let clusterBytes = geometry.clusterSizeBytes
        let bounds = self.bounds
        let geometry = self.geometry
        let end = bounds.endOfClustersFileOffset
        var invalid: [ClosedRange<Int>] = []
        var allocated: UInt64 = 0
        var fragmented: UInt64 = 0
        var taken: UInt64 = 0
        var last = previous
        var index = 0
        while index < count {
            let value = UInt64(littleEndian: entries[index])
            if value <= L2Entry.zeroValue {
                index &+= 1
                continue
            }
            if last != 0 && last &+ clusterBytes != value { fragmented &+= 1 }
            last = value
            if case .invalid(let reason) = bounds.l2Entry(value) {
                allocated &+= 1
                let cluster = firstCluster &+ UInt64(index)
                self.invalid.note(l2Entry: value, reason, ofCluster: cluster, structure.header)
                noteCut(value, reason, byteCount: geometry.clusterSizeBytes)
                if isSabotaged(.signedEntry) { _ = Int(value) }
                if drops { dropped.note(l2Entry: value, reason, ofCluster: cluster, structure.header) }
                if let range = invalid.last, range.upperBound == index - 1 {
                    invalid[invalid.count - 1] = range.lowerBound...index
                } else {
                    invalid.append(index...index)
                }
                index &+= 1
                continue
            }
            let runStart = index
            index &+= 1
            if !isExact && (index == count || UInt64(littleEndian: entries[index]) != value &+ clusterBytes) {
                taken &+= owners.claim(one: value &>> geometry.clusterShift)
                allocated &+= 1
                continue
            }
            var expected = value &+ clusterBytes
            while index < count, expected < end, UInt64(littleEndian: entries[index]) == expected {
                expected &+= clusterBytes
                index &+= 1
            }
            last = expected &- clusterBytes
            allocated &+= UInt64(index &- runStart)
            claim(value, clusters: UInt64(index &- runStart))
        }
        previous = last
        report.crossLinks += taken
        report.allocatedClusters += allocated
        report.fragmentedClusters += fragmented
        return invalid
    }

    @discardableResult @inline(__always)
    private func claim(_ fileOffset: UInt64, clusters: UInt64) -> UInt64 {
        let first = fileOffset >> geometry.clusterShift
        if isExact { noteTwiceOwned(first..<(first + clusters)) }
        let taken = owners.claim(first: first, count: clusters)
        report.crossLinks += taken
        return taken
    }

    private func noteTwiceOwned(_ clusters: Range<UInt64>) {
        guard twiceOwned.count < CheckReport.listLimit, owners.ownedCount(in: clusters) > 0 else { return }
        for cluster in clusters where owners.isOwned(cluster) && twiceOwned.count < CheckReport.listLimit {
            twiceOwned.append(cluster)
        }
    }

    /// An entry may name a cluster that is in the file but for its end: a longer file would have all of it.
    private func noteCut(_ value: UInt64, _ reason: InvalidEntryReason, byteCount: UInt64) {
        guard reason == .pastEndOfFile && value < structure.fileSizeBytes else { return }
        report.fileSizeToKeepCutClusters = max(report.fileSizeToKeepCutClusters ?? 0, value + byteCount)
    }
}
