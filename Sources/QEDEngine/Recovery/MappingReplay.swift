import BlockStorage
import QEDFormat
import SystemPackage

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
    /// Where a table that is to be linked lies, by L1 index: of several the first.
    private var tablesByIndex: [UInt64: UInt64] = [:]
    /// The pieces of the image's L1 table that these need, as they were before the replay.
    private var l1Pieces: [Int: [UInt64]] = [:]

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
        var replay = MappingReplay(
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
            leftOut = try await replay.writePages(to: storage)
            try await sync(storage, noting: &log)
            try await replay.linkTables(in: storage)
            try await sync(storage, noting: &log)
        } catch {
            throw .storage(error)
        }
        log.commit(through: log.lastSequence)
        precondition(leftOut <= records.count, "more is left out than there was")
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
        // What lies behind the disk's end is nobody's: a larger size had been prepared, and never written into the header.
        let l1Count = UInt64(header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes))
        let clusterCount = (header.imageSizeBytes + header.geometry.clusterMask) >> header.geometry.clusterShift
        for record in records where record.index < (record.kind == .table ? l1Count : clusterCount) {
            switch record.kind {
            case .table:
                tables.append(record)
                if tablesByIndex[record.index] == nil { tablesByIndex[record.index] = record.value }
            case .entry, .filledEntry:
                let entriesShift = UInt64(QEDGeometry.entriesPerL2Page.trailingZeroBitCount)
                byPage[Int(record.index >> entriesShift), default: []].append(record)
            }
        }
        pages = byPage.sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    }

    // MARK: - Does the log fit the image?

    private mutating func reasonToRefuse<S: Storage>(
        _ storage: S, fileSizeBytes: UInt64
    ) async throws(ImageOpenError) -> String? {
        let geometry = header.geometry
        var owners = try StructureScan.noOwners(header: header, fileSizeBytes: fileSizeBytes)
        let scan = try await StructureScan.run(
            storage, header: header, fileSizeBytes: fileSizeBytes, repairs: false, owners: &owners)
        guard scan.crossLinkedClusters == 0, scan.invalidEntries == 0 else { return "the image is damaged" }
        let l1Count = geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
        do throws(StorageError) { try await readL1(of: storage) } catch { throw .storage(error) }
        for table in tables {
            precondition(table.index < l1Count, "a table behind the disk's end")
            guard case .allocated(let offset) = bounds.l1Entry(table.value) else {
                return "a table of it is not where one can be"
            }
            let current = l1Value(Int(table.index))
            if current == table.value { continue }
            guard current == 0 else { return "the image has another table there" }
            let taken = owners.claim(first: offset >> geometry.clusterShift, count: geometry.tableSizeClusters)
            guard taken == 0 else { return "the image uses a cluster of a new table" }
        }
        let clusterCount = (header.imageSizeBytes + geometry.clusterMask) >> geometry.clusterShift
        let buffer = PageBuffer()
        defer { buffer.deallocate() }
        for start in stride(from: 0, to: pages.count, by: PageBuffer.pageCount) {
            let group = pages[start..<min(start + PageBuffer.pageCount, pages.count)]
            var places: [TablePiece] = []
            for (page, changes) in group {
                precondition(changes.allSatisfy { $0.index < clusterCount }, "an entry behind the disk's end")
                guard let fileOffset = fileOffset(ofPage: page) else { return "an entry of it has no table" }
                places.append(buffer.place(places.count, fileOffset: fileOffset))
            }
            do throws(StorageError) { try await storage.readSectors(places) } catch { throw .storage(error) }
            for ((_, changes), place) in zip(group, places) {
                if let reason = reasonToRefuse(changes, of: place, &owners) { return reason }
            }
        }
        return nil
    }

    /// - Parameter place: where the page of these changes has been read to.
    private func reasonToRefuse(
        _ changes: [MappingLog.Record], of place: TablePiece, _ owners: inout ClusterOwnership
    ) -> String? {
        precondition(!changes.isEmpty && place.byteCount == QEDGeometry.l2PageSizeBytes, "a page without changes, or no page")
        let content = place.buffer.assumingMemoryBound(to: UInt64.self)
        for (entry, records) in grouped(changes) {
            let current = UInt64(littleEndian: content[entry])
            guard isOf(records, current) else {
                return "an entry of the image has been changed since"
            }
            let value = outcome(of: records, current: current).value
            if value == current { continue }
            switch bounds.l2Entry(value) {
            case .zero: continue
            case .allocated(let offset):
                guard owners.claim(first: offset >> header.geometry.clusterShift, count: 1) == 0 else {
                    return "the image uses a cluster of it"
                }
            case .unallocated, .invalid: return "an entry of it points where no cluster can be"
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
        precondition(!records.isEmpty, "an entry that nothing has changed")
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
        precondition(order.count == byEntry.count, "an entry twice, or never")
        return order.map { ($0, byEntry[$0] ?? []) }
    }

    // MARK: - Tables on the disk

    /// Where a page lies: in a table of the log's, or one that the image has.
    private func fileOffset(ofPage page: Int) -> UInt64? {
        let l1Index = header.geometry.l1Index(ofL2Page: page)
        guard l1Index < header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes) else { return nil }
        let value = tablesByIndex[UInt64(l1Index)] ?? l1Value(l1Index)
        guard case .allocated(let table) = bounds.l1Entry(value) else { return nil }
        return table + header.geometry.offsetInTable(ofL2Page: page)
    }

    private func l1Value(_ index: Int) -> UInt64 {
        guard let piece = l1Pieces[index / QEDGeometry.entriesPerL2Page] else {
            preconditionFailure("a piece of the L1 table that was not read")
        }
        return piece[index % QEDGeometry.entriesPerL2Page]
    }

    private func l1FileOffset(ofPiece piece: Int) -> UInt64 {
        header.l1TableFileOffset + UInt64(piece * QEDGeometry.l2PageSizeBytes)
    }

    /// Reads the pieces of the L1 table that pages and tables of the log belong to.
    private mutating func readL1<S: Storage>(of storage: S) async throws(StorageError) {
        precondition(l1Pieces.isEmpty, "a table that has been read, and perhaps written to, is read again")
        let l1Count = header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
        var indexes = tables.map(\.index)
        indexes += pages.map { UInt64(header.geometry.l1Index(ofL2Page: $0.page)) }
        let numbers = Set(indexes.filter { $0 < l1Count }.map { Int($0) / QEDGeometry.entriesPerL2Page }).sorted()
        let buffer = PageBuffer()
        defer { buffer.deallocate() }
        for start in stride(from: 0, to: numbers.count, by: PageBuffer.pageCount) {
            let group = numbers[start..<min(start + PageBuffer.pageCount, numbers.count)]
            let places = group.enumerated().map { buffer.place($0.offset, fileOffset: l1FileOffset(ofPiece: $0.element)) }
            try await storage.readSectors(places)
            for (number, place) in zip(group, places) {
                let values = place.buffer.assumingMemoryBound(to: UInt64.self)
                l1Pieces[number] = (0..<QEDGeometry.entriesPerL2Page).map { UInt64(littleEndian: values[$0]) }
            }
        }
    }

    /// - Returns: how many of the changes were left out.
    private func writePages<S: Storage>(to storage: S) async throws(StorageError) -> Int {
        var leftOut = 0
        let buffer = PageBuffer()
        defer { buffer.deallocate() }
        for start in stride(from: 0, to: pages.count, by: PageBuffer.pageCount) {
            let group = pages[start..<min(start + PageBuffer.pageCount, pages.count)]
            let places = group.enumerated().map { number, page in
                guard let fileOffset = fileOffset(ofPage: page.page) else {
                    preconditionFailure("a page that was found before has no table now")
                }
                return buffer.place(number, fileOffset: fileOffset)
            }
            try await storage.readSectors(places)
            var changed: [TablePiece] = []
            for ((page, changes), place) in zip(group, places) {
                precondition(
                    changes.allSatisfy { Int($0.index) / QEDGeometry.entriesPerL2Page == page }, "a change of another page")
                let outcome = try change(place, by: changes)
                leftOut += outcome.leftOut
                if outcome.isChanged || !isSabotaged(.trustReadableTables) { changed.append(place) }
            }
            try await storage.writeFully(changed)
        }
        return leftOut
    }

    /// - Throws: where the page is not as it was when the log was judged by it (`differs`).
    private func change(
        _ place: TablePiece, by changes: [MappingLog.Record]
    ) throws(StorageError) -> (isChanged: Bool, leftOut: Int) {
        let entries = place.buffer.assumingMemoryBound(to: UInt64.self)
        var isChanged = false
        var leftOut = 0
        for (entry, records) in grouped(changes) {
            let current = UInt64(littleEndian: entries[entry])
            guard isOf(records, current) else { throw differs(place) }
            let change = outcome(of: records, current: current)
            entries[entry] = change.value.littleEndian
            leftOut += change.leftOut
            isChanged = isChanged || change.value != current
        }
        return (isChanged, leftOut)
    }

    /// Whether an entry is one that these changes knew, or have made.
    private func isOf(_ records: [MappingLog.Record], _ current: UInt64) -> Bool {
        current == records[0].oldValue || records.contains { $0.value == current }
    }

    /// What was read again is not what was read before: by a disk, or another program, that nothing more can be built on.
    private func differs(_ place: TablePiece) -> StorageError {
        StorageError(.read, fileOffset: place.fileOffset, byteCount: UInt64(place.byteCount), errno: .ioError)
    }

    private func linkTables<S: Storage>(in storage: S) async throws(StorageError) {
        let byPiece = Dictionary(grouping: tables) { Int($0.index) / QEDGeometry.entriesPerL2Page }
        let buffer = PageBuffer()
        defer { buffer.deallocate() }
        for (piece, records) in byPiece.sorted(by: { $0.key < $1.key }) {
            let place = buffer.place(0, fileOffset: l1FileOffset(ofPiece: piece))
            try await storage.readSectors([place])
            let entries = place.buffer.assumingMemoryBound(to: UInt64.self)
            for table in records {
                let index = Int(table.index) % QEDGeometry.entriesPerL2Page
                let present = UInt64(littleEndian: entries[index])
                guard present == 0 || present == table.value else { throw differs(place) }
                entries[index] = table.value.littleEndian
            }
            try await storage.writeFully([place])
        }
    }
}

/// Memory for pages of tables that are read and written together.
private struct PageBuffer {
    static let pageCount = TablePiece.limit
    // SAFETY: allocated here; whoever makes one frees it when nothing is on its way any more.
    private let memory = UnsafeMutableRawPointer.allocate(
        byteCount: PageBuffer.pageCount * QEDGeometry.l2PageSizeBytes, alignment: QEDGeometry.l2PageSizeBytes)

    func deallocate() { memory.deallocate() }

    func place(_ number: Int, fileOffset: UInt64) -> TablePiece {
        precondition(number < PageBuffer.pageCount, "a page outside the buffer")
        return TablePiece(
            buffer: memory + number * QEDGeometry.l2PageSizeBytes, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
    }
}
