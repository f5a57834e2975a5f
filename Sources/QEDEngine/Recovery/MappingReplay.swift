import BlockStorage
import QEDFormat

/// Brings an image's tables to where a dead process had them in memory: the commit that it did not live to make.
///
/// Either every record is applied or none: a log that does not fit the image to the last record is another time's, and
/// the image is opened as after a power cut.
struct MappingReplay {
    enum Outcome: Equatable, Sendable {
        case nothingToReplay
        case replayed(records: Int)
        case rejected(reason: String)
    }

    private let header: QEDHeader
    private let bounds: TableEntryBounds
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
            header: header, fileSizeBytes: fileSizeBytes,
            records: isSabotaged(.replayNewestFirst) ? records.reversed() : records)
        if let reason = try await replay.reasonToRefuse(storage, fileSizeBytes: fileSizeBytes) {
            return .rejected(reason: reason)
        }
        if isSabotaged(.commitReplayFirst) { log.commit(through: log.lastSequence) }
        do throws(StorageError) {
            // The data first: it is in the file, but only a sync makes it stay.
            if !isSabotaged(.replayWithoutDataSync) { try await storage.sync() }
            for (page, changes) in replay.pages { try await replay.write(page, changes, to: storage) }
            try await storage.sync()
            try await replay.linkTables(in: storage)
            try await storage.sync()
        } catch {
            throw .storage(error)
        }
        log.commit(through: log.lastSequence)
        return .replayed(records: records.count)
    }

    private init(header: QEDHeader, fileSizeBytes: UInt64, records: [MappingLog.Record]) {
        self.header = header
        bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        var byPage: [Int: [MappingLog.Record]] = [:]
        for record in records {
            switch record.kind {
            case .table: tables.append(record)
            case .entry:
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
                guard let value = records.last?.value, value != current else { continue }
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

    private func write<S: Storage>(
        _ page: Int, _ changes: [MappingLog.Record], to storage: S
    ) async throws(StorageError) {
        let fileOffset: UInt64?
        do throws(ImageOpenError) { fileOffset = try await self.fileOffset(ofPage: page, in: storage) } catch {
            throw error.storageError
        }
        guard let fileOffset else { preconditionFailure("a page that was found before has no table now") }
        try await change(fileOffset, in: storage) { entries in
            for change in changes {
                entries[Int(change.index) & (QEDGeometry.entriesPerL2Page - 1)] = change.value.littleEndian
            }
        }
    }

    private func linkTables<S: Storage>(in storage: S) async throws(StorageError) {
        for table in tables {
            let piece = Int(table.index) / QEDGeometry.entriesPerL2Page
            try await change(l1FileOffset(ofPiece: piece), in: storage) { entries in
                entries[Int(table.index) % QEDGeometry.entriesPerL2Page] = table.value.littleEndian
            }
        }
    }

    /// Reads 4 KiB of a table, changes entries, and writes them back.
    private func change<S: Storage>(
        _ fileOffset: UInt64, in storage: S, _ body: (UnsafeMutablePointer<UInt64>) -> Void
    ) async throws(StorageError) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: QEDGeometry.l2PageSizeBytes, alignment: 4096)
        defer { buffer.deallocate() }
        try await StructureScan.readTable(
            storage, into: buffer, byteCount: QEDGeometry.l2PageSizeBytes, at: fileOffset)
        body(buffer.assumingMemoryBound(to: UInt64.self))
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
