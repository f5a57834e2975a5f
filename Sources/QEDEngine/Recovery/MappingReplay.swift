import BlockStorage
import QEDFormat

/// Brings an image's tables to where a dead process had them in memory: the commit that it did not live to make.
///
/// Either every record is applied or none: a log that does not fit the image to the last record is another time's, and
/// the image is opened as after a power cut.
///
/// But for one kind: where a sync has failed, entries of filled clusters whose data no sync had covered are left out, with
/// whatever changed them later. Their data may be lost although it can still be read, and then the entry would put
/// zeros in place of what the backing file has, for sectors that nobody has written.
struct MappingReplay {
    enum Outcome: Equatable, Sendable {
        case nothingToReplay
        /// - Parameter leftOut: changes whose data a failed sync may have lost.
        case replayed(records: Int, leftOut: Int)
        case rejected(reason: String)
    }

    private let header: QEDHeader
    private let bounds: TableEntryBounds
    /// The data of filled clusters that were recorded after this may be lost; nil: no sync has failed.
    private let lossAfter: UInt64?
    /// Entries of pages that change, by page; and tables to be linked, by L1 index. Sorted, so that a replay is the same
    /// whenever it is repeated.
    private var pages: [(page: Int, changes: [MappingLog.Record])] = []
    private var tables: [MappingLog.Record] = []

    /// Replays `log` onto the image; if the process dies here too, the next one does it again.
    static func run<S: Storage>(
        _ storage: S, header: QEDHeader, fileSizeBytes: UInt64, log: MappingLog
    ) async throws(ImageOpenError) -> Outcome {
        guard let records = log.uncommitted() else { return .rejected(reason: "it is damaged") }
        if records.isEmpty { return .nothingToReplay }
        // Every program that opens the image for writing, and does not have the log, clears the one bit before it changes
        // anything, and the other when it is done.
        guard header.needsCheck && header.hasMappingLog else {
            return .rejected(reason: "another program has opened the image since")
        }
        let replay = MappingReplay(
            header: header, fileSizeBytes: fileSizeBytes, lossAfter: isSabotaged(.publishLostFills) ? nil : log.lossAfter,
            records: isSabotaged(.replayNewestFirst) ? records.reversed() : records)
        if let reason = try await replay.reasonToRefuse(storage, fileSizeBytes: fileSizeBytes) {
            return .rejected(reason: reason)
        }
        if isSabotaged(.commitReplayFirst) { log.commit(through: log.lastSequence) }
        var log = log
        var leftOut = 0
        do throws(StorageError) {
            // The data first: it is in the file, but only a sync makes it stay.
            if !isSabotaged(.replayWithoutDataSync) { try await sync(storage, noting: &log) }
            // Every page that the log names, changed or not: what can be read of it may be what a failed sync has lost.
            for (page, changes) in replay.pages { leftOut += try await replay.write(page, changes, to: storage) }
            try await sync(storage, noting: &log)
            try await replay.linkTables(in: storage)
            try await sync(storage, noting: &log)
        } catch {
            throw .storage(error)
        }
        log.commit(through: log.lastSequence)
        return .replayed(records: records.count - leftOut, leftOut: leftOut)
    }

    /// A sync that fails here loses as much as any other, and the next attempt's would succeed.
    private static func sync<S: Storage>(_ storage: S, noting log: inout MappingLog) async throws(StorageError) {
        log.syncBegan()
        do throws(StorageError) { try await storage.sync() } catch {
            if !isSabotaged(.forgetLossInReplay) { log.syncFailed() }
            throw error
        }
        log.syncSucceeded()
    }

    private init(header: QEDHeader, fileSizeBytes: UInt64, lossAfter: UInt64?, records: [MappingLog.Record]) {
        self.header = header
        self.lossAfter = lossAfter
        bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        var byPage: [Int: [MappingLog.Record]] = [:]
        for record in records {
            switch record.kind {
            case .table: tables.append(record)
            case .entry, .filledEntry:
                let entriesShift = UInt64(QEDGeometry.entriesPerL2Page.trailingZeroBitCount)
                byPage[Int(record.index >> entriesShift), default: []].append(record)
            }
        }
        pages = byPage.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    // MARK: - Does the log fit the image?

    private func reasonToRefuse<S: Storage>(
        _ storage: S, fileSizeBytes: UInt64
    ) async throws(ImageOpenError) -> String? {
        let geometry = header.geometry
        var owners = try StructureScan.noOwners(header: header, fileSizeBytes: fileSizeBytes)
        let scan = try await StructureScan.run(
            storage, header: header, fileSizeBytes: fileSizeBytes, repairs: false, owners: &owners)
        guard scan.crossLinkedClusters == 0, scan.invalidEntries == 0 else { return "the image is damaged" }
        let l1Count = geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
        for table in tables {
            guard table.index < l1Count, case .allocated(let offset) = bounds.l1Entry(table.value) else {
                return "a table of it is not where one can be"
            }
            let current = try await l1Value(Int(table.index), in: storage)
            if current == table.value { continue }
            guard current == 0 else { return "the image has another table there" }
            let taken = owners.claim(first: offset >> geometry.clusterShift, count: geometry.tableSizeClusters)
            guard taken == 0 else { return "the image uses a cluster of a new table" }
        }
        let clusterCount = (header.imageSizeBytes + geometry.clusterMask) >> geometry.clusterShift
        for (page, changes) in pages {
            guard let last = changes.last, last.index < clusterCount,
                let fileOffset = try await fileOffset(ofPage: page, in: storage)
            else { return "an entry of it has no table" }
            let content = try await read(fileOffset, from: storage)
            for (entry, records) in grouped(changes) {
                let current = content[entry]
                guard current == records[0].oldValue || records.contains(where: { $0.value == current }) else {
                    return "an entry of the image has been changed since"
                }
                let value = outcome(of: records, current: current).value
                if value == current { continue }
                switch bounds.l2Entry(value) {
                case .zero: continue
                case .allocated(let offset):
                    guard owners.claim(first: offset >> geometry.clusterShift, count: 1) == 0 else {
                        return "the image uses a cluster of it"
                    }
                case .unallocated, .invalid: return "an entry of it points where no cluster can be"
                }
            }
        }
        return nil
    }

    /// What an entry is to be, and how many of its changes are left out for that.
    ///
    /// - Parameters:
    ///   - records: its changes, oldest first.
    ///   - current: what the image's table says. A table gets an entry of a filled cluster only after a sync of its data,
    ///     so one that is there already may stay.
    private func outcome(of records: [MappingLog.Record], current: UInt64) -> (value: UInt64, leftOut: Int) {
        var value = current
        for (index, record) in records.enumerated() {
            if let lossAfter, record.kind == .filledEntry, record.sequence > lossAfter {
                if records[index...].contains(where: { $0.value == current }) { return (current, 0) }
                return (index == 0 ? record.oldValue : value, records.count - index)
            }
            value = record.value
        }
        return (value, 0)
    }

    /// The changes of a page by entry, in the order in which the entries were first changed.
    private func grouped(_ changes: [MappingLog.Record]) -> [(entry: Int, records: [MappingLog.Record])] {
        var order: [Int] = []
        var byEntry: [Int: [MappingLog.Record]] = [:]
        for change in changes {
            let entry = Int(change.index) & (QEDGeometry.entriesPerL2Page - 1)
            if byEntry[entry] == nil { order.append(entry) }
            byEntry[entry, default: []].append(change)
        }
        return order.map { ($0, byEntry[$0] ?? []) }
    }

    // MARK: - Tables on the disk

    /// Where a page lies: in a table of the log's, or one that the image has.
    private func fileOffset<S: Storage>(ofPage page: Int, in storage: S) async throws(ImageOpenError) -> UInt64? {
        let l1Index = header.geometry.l1Index(ofL2Page: page)
        guard l1Index < header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes) else { return nil }
        let value: UInt64
        if let table = tables.first(where: { $0.index == UInt64(l1Index) }) {
            value = table.value
        } else {
            value = try await l1Value(l1Index, in: storage)
        }
        guard case .allocated(let table) = bounds.l1Entry(value) else { return nil }
        return table + header.geometry.offsetInTable(ofL2Page: page)
    }

    private func l1Value<S: Storage>(_ index: Int, in storage: S) async throws(ImageOpenError) -> UInt64 {
        let piece = index / QEDGeometry.entriesPerL2Page
        let content = try await read(l1FileOffset(ofPiece: piece), from: storage)
        return content[index % QEDGeometry.entriesPerL2Page]
    }

    private func l1FileOffset(ofPiece piece: Int) -> UInt64 {
        header.l1TableFileOffset + UInt64(piece * QEDGeometry.l2PageSizeBytes)
    }

    private func read<S: Storage>(_ fileOffset: UInt64, from storage: S) async throws(ImageOpenError) -> [UInt64] {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: QEDGeometry.l2PageSizeBytes, alignment: 4096)
        defer { buffer.deallocate() }
        do throws(StorageError) {
            try await StructureScan.readTable(
                storage, into: buffer, byteCount: QEDGeometry.l2PageSizeBytes, at: fileOffset)
        } catch {
            throw .storage(error)
        }
        let values = buffer.assumingMemoryBound(to: UInt64.self)
        return (0..<QEDGeometry.entriesPerL2Page).map { UInt64(littleEndian: values[$0]) }
    }

    /// - Returns: how many of the changes were left out.
    private func write<S: Storage>(
        _ page: Int, _ changes: [MappingLog.Record], to storage: S
    ) async throws(StorageError) -> Int {
        let fileOffset: UInt64?
        do throws(ImageOpenError) { fileOffset = try await self.fileOffset(ofPage: page, in: storage) } catch {
            throw error.storageError
        }
        guard let fileOffset else { preconditionFailure("a page that was found before has no table now") }
        var leftOut = 0
        try await change(fileOffset, in: storage) { entries in
            var isChanged = false
            for (entry, records) in grouped(changes) {
                let current = UInt64(littleEndian: entries[entry])
                let change = outcome(of: records, current: current)
                entries[entry] = change.value.littleEndian
                leftOut += change.leftOut
                isChanged = isChanged || change.value != current
            }
            return isChanged || !isSabotaged(.trustReadableTables)
        }
        return leftOut
    }

    private func linkTables<S: Storage>(in storage: S) async throws(StorageError) {
        for table in tables {
            let piece = Int(table.index) / QEDGeometry.entriesPerL2Page
            try await change(l1FileOffset(ofPiece: piece), in: storage) { entries in
                entries[Int(table.index) % QEDGeometry.entriesPerL2Page] = table.value.littleEndian
                return true
            }
        }
    }

    /// Reads 4 KiB of a table, changes entries, and writes them back where `body` says so.
    private func change<S: Storage>(
        _ fileOffset: UInt64, in storage: S, _ body: (UnsafeMutablePointer<UInt64>) -> Bool
    ) async throws(StorageError) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: QEDGeometry.l2PageSizeBytes, alignment: 4096)
        defer { buffer.deallocate() }
        try await StructureScan.readTable(
            storage, into: buffer, byteCount: QEDGeometry.l2PageSizeBytes, at: fileOffset)
        guard body(buffer.assumingMemoryBound(to: UInt64.self)) else { return }
        try await storage.writeFully(from: buffer, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
    }
}

extension ImageOpenError {
    /// The I/O error behind it; where there is none the caller has checked already.
    fileprivate var storageError: StorageError {
        guard case .storage(let error) = self else { preconditionFailure("not an I/O error: \(self)") }
        return error
    }
}
