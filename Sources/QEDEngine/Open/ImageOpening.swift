import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// How an image is to be opened.
public struct ImageOptions: Sendable {
    public var isReadOnly: Bool
    /// For L2 pages in memory, and pages of the chain, half of it for each. Not in it: what the L1 tables and the directories
    /// take, which grow with what the image has (see `PageCache.standardPageWordLimit`).
    public var cacheBytes: Int
    public static let standardCacheBytes = 32 << 20

    /// Of the words by which lookups find L2 pages without a lock; see `PageCache.standardPageWordLimit`.
    package var pageWordLimit = PageCache.standardPageWordLimit
    /// By how much the file is extended ahead, at first.
    package var smallestChunkBytes = AllocationCursor.standardSmallestChunkBytes

    /// Memory that outlives this process, for the image's mapping log; what an earlier process left there is replayed.
    public var session: SessionMemory?
    /// The disk is in use and somebody trusts what an earlier process has acknowledged: where that is lost, the image is not
    /// opened.
    public var continuesSession: Bool
    /// Open the image even though what an earlier process has acknowledged is lost with that: its log is not here.
    public var discardsLostSession: Bool
    /// Leave the mark of a merge that is under way (`QEDAutoclearFeatures.unfinishedMerge`): it is the caller's.
    public var keepsMergeMark = false
    /// Keep in the image what is read from the raw file at the bottom of the chain (`CopyOnRead`). Not of an image that is only
    /// read.
    public var keepsReads = false
    /// The image has nothing but such reads, and may lose them (`QEDAutoclearFeatures.keptReads`): nothing is kept any more where
    /// its file would become longer than this. What is read from between the image and the bottom of the chain is kept, too.
    public var keptLimitBytes: UInt64?
    /// Is told which ranges of the raw file at the bottom of the chain are read for the disk's users.
    public var recorder: ReadRecorder?
    /// With larger clusters nothing is kept: one has to fit a buffer.
    public static let largestKeptClusterBytes = UInt64(StagingPool.largestBufferBytes)

    public init(
        isReadOnly: Bool = false, cacheBytes: Int = standardCacheBytes, session: SessionMemory? = nil,
        continuesSession: Bool = false, discardsLostSession: Bool = false, keepsReads: Bool = false,
        keptLimitBytes: UInt64? = nil, recorder: ReadRecorder? = nil
    ) {
        self.keepsReads = keepsReads
        self.keptLimitBytes = keptLimitBytes
        self.recorder = recorder
        self.isReadOnly = isReadOnly
        self.cacheBytes = cacheBytes
        self.session = session
        self.continuesSession = continuesSession
        self.discardsLostSession = discardsLostSession
    }

    fileprivate func keptFeatures(hasLog: Bool) -> QEDAutoclearFeatures {
        var kept: QEDAutoclearFeatures = hasLog ? .mappingLog : []
        if keepsMergeMark { kept.insert(.unfinishedMerge) }
        if keptLimitBytes != nil { kept.insert(.keptReads) }
        return kept
    }
}

/// Memory for a `MappingLog`: mapped by somebody who keeps it mapped while the image is open.
public struct SessionMemory: @unchecked Sendable {
    // SAFETY: the engine alone writes to it between open and close; see `MappingLog`.
    public var address: UnsafeMutableRawPointer
    public var sizeBytes: Int
    public var owner: MappingLog.Owner
    /// Of a log that has to be made: a random number.
    public var newSession: UInt64
    /// Is told of every store, where somebody wants to know.
    public var trace: StoreTrace?

    public init(
        address: UnsafeMutableRawPointer, sizeBytes: Int, owner: MappingLog.Owner, newSession: UInt64,
        trace: StoreTrace? = nil
    ) {
        self.address = address
        self.sizeBytes = sizeBytes
        self.owner = owner
        self.newSession = newSession
        self.trace = trace
    }
}

/// An image that cannot be opened; nothing has been changed in it.
public enum ImageOpenError: Error, Equatable, CustomStringConvertible {
    case storage(StorageError)
    case damaged(invalidEntries: UInt64, crossLinkedClusters: UInt64)
    case tooLargeToCheck(fileSizeBytes: UInt64)
    case tablesInHoles
    case sessionLost(reason: String)
    /// The same, where nobody waits for it yet.
    case logNotHere(reason: String)
    case unfinishedSession
    /// There is no memory for the cache of L2 pages.
    case noCache(sizeBytes: Int, Errno)

    public var description: String {
        switch self {
        case .storage(let error): "cannot read or repair its tables: \(error)"
        case .damaged(let invalid, 0):
            "\(invalid) table entries point where no cluster can be; repair it (qed-ublk check -r all) or open it "
                + "read-only"
        case .damaged(_, let crossLinked):
            "\(crossLinked) clusters have more than one owner, and nobody can tell whose data they hold: list them (qed-ublk "
                + "check), open it read-only to save its data, or separate them (qed-ublk check -r all --repair-cross-links)"
        case .tooLargeToCheck(let size):
            "a file of \(size) bytes has too many clusters to be checked; open it read-only"
        case .tablesInHoles:
            "more of its tables than can be read lies in holes of the file, so nobody knows for certain which clusters are free"
        case .sessionLost(let reason):
            "what its last server had acknowledged and not yet written is lost: \(reason)"
        case .logNotHere(let reason):
            "its server died, and what it had acknowledged and not yet written cannot be had: \(reason); look for the log "
                + "(QED_UBLK_RUNTIME_DIR, the file system that the image was on), or give those writes up with 'qed-ublk add "
                + "--force', as for a copy that was made while the image was in use"
        case .noCache(let sizeBytes, let errno):
            "no memory for a cache of \(sizeBytes) bytes for its tables (\(errno)); ask for less (qed-ublk add --cache-size)"
        case .unfinishedSession:
            "its server died and has left writes that are not in the image yet: go on with its device ('qed-ublk recover') or "
                + "remove that ('qed-ublk del') first; where there is none any more, add the image once, or give those writes up "
                + "with 'qed-ublk check -r leaks --force'"
        }
    }
}

extension Image {
    /// Opens an image over its chain's storages: reads the L1 tables and, when it is to be written, checks its structure.
    ///
    /// A writable image is served only when every entry of every table points at a cluster of its own. If NEED_CHECK is set
    /// the entries that a crash left dangling are dropped first, as the format asks; the bit stays set until the image is
    /// closed or idle. Runs on the thread of the storages' ring, before the image is shared.
    public static func open<S: Storage>(
        chain: [Layer], storages: ChainStorage<S>, options: ImageOptions
    ) async throws(ImageOpenError) -> Image {
        precondition(chain.count == storages.count, "a storage for each file of the chain")
        return try await open(chain, storages, options, nil)
    }

    /// Opens an empty overlay that is to take the place of the top of a chain that is being served: `TopSwitch`. While that is
    /// served: nothing of it is touched.
    /// - Parameters:
    ///   - top: of the size and the geometry of the image that it is to lie over.
    ///   - options: those of a new image: with a session of its own, if any.
    public static func open<S: Storage>(
        top: Layer, storage: S, options: ImageOptions, over topSwitch: TopSwitch
    ) async throws(ImageOpenError) -> Image {
        precondition(!options.isReadOnly && top.sizeBytes == topSwitch.lower.sizeBytes, "a top of another size")
        return try await open([top] + topSwitch.layers, ChainStorage(top: storage), options, topSwitch)
    }

    private static func open<S: Storage>(
        _ chain: [Layer], _ storages: ChainStorage<S>, _ options: ImageOptions, _ topSwitch: TopSwitch?
    ) async throws(ImageOpenError) -> Image {
        guard case .qed(var header, var fileSizeBytes) = chain[0] else { preconditionFailure("the image must be QED") }
        let headerPage = UnsafeMutableRawPointer.allocate(byteCount: headerPageBytes, alignment: headerPageBytes)
        var owned = false
        defer { if !owned { headerPage.deallocate() } }
        do throws(StorageError) {
            try await storages.top.readFully(into: headerPage, byteCount: headerPageBytes, fileOffset: 0)
        } catch {
            throw .storage(error)
        }
        var prepared = Prepared()
        var replay = MappingReplay.Outcome.nothingToReplay
        var lastLog: MappingLog?
        if !options.isReadOnly {
            if let session = options.session {
                lastLog = try await goOn(
                    with: session, storages.top, header: header, fileSizeBytes: fileSizeBytes, headerPage: headerPage,
                    options: options, replay: &replay)
            } else if options.continuesSession && header.needsCheck {
                throw .sessionLost(reason: "its log is gone")
            }
            prepared = try await prepareForWriting(
                storages.top, header: &header, keeping: options.keptFeatures(hasLog: lastLog != nil),
                fileSizeBytes: &fileSizeBytes, headerPage: headerPage)
        }

        var layers = chain
        // As preparing it has left it.
        layers[0] = .qed(header: header, fileSizeBytes: fileSizeBytes)
        var bases: [BaseTables?] = topSwitch?.bases ?? []
        for (index, layer) in layers.enumerated().dropFirst(1 + bases.count) {
            guard case .qed(let header, let fileSizeBytes) = layer else {
                bases.append(nil)
                continue
            }
            let l1 = try await readL1(storages[index], header: header)
            bases.append(BaseTables(header: header, fileSizeBytes: fileSizeBytes, l1: l1))
        }
        let resolved: ResolvedPages?
        let cache: PageCache
        do throws(Errno) {
            if let pages = topSwitch?.lower.resolved {
                resolved = pages
            } else {
                resolved = try ResolvedPages(
                    chain: layers, budgetBytes: options.cacheBytes / 2, wordLimit: options.pageWordLimit)
            }
            let budgetBytes = resolved == nil ? options.cacheBytes : options.cacheBytes / 2
            cache = try PageCache(budgetBytes: budgetBytes, pageWordLimit: options.pageWordLimit)
        } catch {
            throw .noCache(sizeBytes: options.cacheBytes, error)
        }
        let l1 = try await readL1(storages.top, header: header)
        let top = ImageTables(header: header, fileSizeBytes: fileSizeBytes, l1: l1, cache: cache)
        let cursor = AllocationCursor(
            smallestChunkBytes: options.smallestChunkBytes, clusterSizeBytes: header.geometry.clusterSizeBytes,
            endOfClusters: prepared.endOfClusters,
            // What an earlier process has left need not be durable, and without a log its bit is not there: the first
            // extension writes both again.
            needCheck: header.needsCheck ? .unknown : .clear, aheadLimit: options.keptLimitBytes ?? .max)
        owned = true
        let hasRoomForNote = SessionNote.hasRoom(
            in: UnsafeRawBufferPointer(start: headerPage, count: headerPageBytes), of: header)
        var note: SessionNote?
        var state = ImageState(cache: cache, cursor: cursor, resolved: resolved, layerNumber: layers.count - 1)
        if let session = options.session, !options.isReadOnly {
            // A log that goes on is valid at every instant; one that is made anew is not, while it is being made.
            let capacity = MappingLog.capacity(ofSizeBytes: session.sizeBytes)
            // What the header says of the last one stays true.
            let number = lastLog?.session ?? session.newSession
            if let lastLog, lastLog.canGoOn(capacity: capacity) {
                lastLog.forgetLoss()
                state.log = lastLog
            } else {
                state.log = MappingLog(
                    formatting: session.address, capacity: capacity, for: session.owner, session: number,
                    trace: session.trace)
            }
            note = SessionNote(boot: session.owner.boot, session: number)
        }
        return Image(
            layers: layers, top: top, bases: bases, resolved: resolved, isReadOnly: options.isReadOnly, state: state,
            headerPage: headerPage, hasRoomForNote: hasRoomForNote,
            note: note, replay: replay, droppedEntries: prepared.droppedEntries, topSwitch: topSwitch,
            keepsReads: options.keepsReads && !options.isReadOnly, keptLimitBytes: options.keptLimitBytes,
            recorder: options.recorder)
    }

    /// Replays what an earlier process has left in the session's memory.
    /// - Returns: the log to go on with; nil where there is none, or it does not fit the image.
    /// - Throws: also where what was acknowledged would be lost, and that is not known to be what is wanted.
    private static func goOn<S: Storage>(
        with session: SessionMemory, _ storage: S, header: QEDHeader, fileSizeBytes: UInt64,
        headerPage: UnsafeMutableRawPointer, options: ImageOptions, replay: inout MappingReplay.Outcome
    ) async throws(ImageOpenError) -> MappingLog? {
        let note = SessionNote(in: UnsafeRawBufferPointer(start: headerPage, count: headerPageBytes), of: header)
        var lost: String?
        var log = MappingLog(
            adopting: session.address, sizeBytes: session.sizeBytes, for: session.owner, trace: session.trace)
        if let found = log, let note, note.session != found.session {
            lost = "the log that is here is another session's"
            log = nil
        }
        if let log {
            replay = try await MappingReplay.run(storage, header: header, fileSizeBytes: fileSizeBytes, log: log)
            guard case .rejected(let reason) = replay else {
                precondition(log.committedSequence == log.lastSequence, "a log goes on that has what is not in the image")
                return log
            }
            lost = reason
        } else if header.needsCheck {
            lost = lost ?? "its log is gone"
        }
        guard let lost else { return nil }
        if options.continuesSession { throw .sessionLost(reason: lost) }
        // On another boot it was lost with the power, and nothing of it was promised.
        if note?.boot == session.owner.boot && !options.discardsLostSession { throw .logNotHere(reason: lost) }
        return nil
    }

    /// What was found, and done, before an image is written.
    private struct Prepared {
        /// Where the next cluster will be allocated: the file's length, a whole number of clusters.
        var endOfClusters: UInt64 = 0
        /// Entries that could not be right.
        var droppedEntries: UInt64 = 0
    }

    private static func prepareForWriting<S: Storage>(
        _ storage: S, header: inout QEDHeader, keeping autoclearFeatures: QEDAutoclearFeatures,
        fileSizeBytes: inout UInt64, headerPage: UnsafeMutableRawPointer
    ) async throws(ImageOpenError) -> Prepared {
        let scan = try await StructureScan.run(storage, header: header, fileSizeBytes: fileSizeBytes, repairs: false)
        guard scan.crossLinkedClusters == 0, scan.invalidEntries == 0 || header.needsCheck else {
            throw .damaged(invalidEntries: scan.invalidEntries, crossLinkedClusters: scan.crossLinkedClusters)
        }
        do throws(StorageError) {
            if header.hasAutoclearFeatures(except: autoclearFeatures) {
                // Before anything else is changed: another program's extra data is stale from now on.
                header.clearAutoclearFeatures(except: autoclearFeatures)
                headerPage.copyMemory(from: header.encoded(), byteCount: QEDLimits.headerSizeBytes)
                let block = max(storage.alignment.offsetBytes, Int(QEDLimits.sectorSizeBytes))
                try await storage.writeFully(from: headerPage, byteCount: min(block, headerPageBytes), fileOffset: 0)
                try await storage.sync()
            }
        } catch {
            throw .storage(error)
        }
        if scan.invalidEntries > 0 {
            _ = try await StructureScan.run(storage, header: header, fileSizeBytes: fileSizeBytes, repairs: true)
        }
        do throws(StorageError) {
            if scan.invalidEntries > 0 { try await storage.sync() }
            let wholeClusters = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes).endOfClustersFileOffset
            // After a crash nobody refers to what lies behind the last cluster in use: space that was reserved ahead. An
            // image that was closed well keeps its tail: it may be of use to somebody who wants to rescue data.
            // And where a table was dropped, its clusters may be what somebody wants to find; where a part of one was not
            // read, its entries may name what would be cut off.
            let gives = header.needsCheck && scan.invalidTables == 0 && scan.holes.inferredBytes == 0
            let length = gives ? scan.endOfReferenced : wholeClusters
            precondition(
                length % header.geometry.clusterSizeBytes == 0 && length >= scan.endOfReferenced,
                "a file is cut to less than its tables refer to")
            if length != fileSizeBytes {
                try await storage.setLength(length)
                try await storage.sync()
                fileSizeBytes = length
            }
            return Prepared(endOfClusters: length, droppedEntries: scan.invalidEntries)
        } catch {
            throw .storage(error)
        }
    }

    /// As much of the L1 table as the image's size needs.
    private static func readL1(_ storage: any BaseStorage, header: QEDHeader) async throws(ImageOpenError) -> [UInt64] {
        let count = header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
        var entries: [UInt64] = []
        entries.reserveCapacity(
            isSabotaged(.trustImageSize) ? Int(header.imageSizeBytes >> header.geometry.clusterShift) : count)
        let pageBytes = QEDGeometry.l2PageSizeBytes
        let sizeBytes = (count * 8 + pageBytes - 1) / pageBytes * pageBytes
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: min(sizeBytes, TablePiece.largestBytes), alignment: 4096)
        defer { buffer.deallocate() }
        while entries.count < count {
            let done = entries.count * 8
            let byteCount = min(sizeBytes - done, TablePiece.largestBytes)
            do throws(StorageError) {
                try await storage.readSectors(
                    into: buffer, byteCount: byteCount, fileOffset: header.l1TableFileOffset + UInt64(done))
            } catch {
                throw .storage(error)
            }
            let values = buffer.assumingMemoryBound(to: UInt64.self)
            for index in 0..<min(byteCount / 8, count - entries.count) {
                entries.append(UInt64(littleEndian: values[index]))
            }
        }
        precondition(entries.count == count, "an L1 table of another length than the image needs")
        return entries
    }
}
