import CSupport
import Glibc
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// An open image with its backing chain: what all queues that serve it share.
///
/// Lookups go through `PageLookup` without locks. Everything that changes goes through `state`, whose lock is held only for
/// transitions; the I/O that a transition asks for is performed by the caller, on its own queue.
public final class Image: @unchecked Sendable {
    public let geometry: QEDGeometry
    public var header: QEDHeader { top.header }
    /// The device's size.
    public var sizeBytes: UInt64 { sizeNow.load(ordering: .relaxed) }
    private let sizeNow: Atomic<UInt64>
    /// What the header says of it: less, as long as a larger size is being prepared, or where that has failed.
    public var headerSizeBytes: UInt64 { headerSize.load(ordering: .relaxed) }
    let headerSize: Atomic<UInt64>
    public let isReadOnly: Bool
    /// What is read from the bottom of the chain is kept (`CopyOnRead`).
    public let keepsReads: Bool
    /// See `ImageOptions.keptLimitBytes`.
    public let keptLimitBytes: UInt64?
    /// How many reads of the disk's users, on all queues, wait for the bottom of the chain themselves, and not for a fetch.
    let readsBeneath = Atomic<Int>(0)
    /// Is told what is read from the bottom of the chain.
    let recorder: ReadRecorder?

    /// These, and what comes of a switch of the top or of another chain (`replaceChain`), change only while all queues are quiet.
    var layers: [Layer]
    /// Of the layers beneath, from layer 1 on; nil for a raw one, and for `lower`.
    var bases: [BaseTables?]
    /// What was the top before this image, until it is sealed: until then what it has in memory counts.
    var lower: Image?
    /// The switch by which this image became the top, as long as there is a `lower`.
    var topSwitch: TopSwitch?
    /// Of the image itself: layer 0.
    let top: ImageTables
    /// Device offsets from here on have nothing in the backing chain: they read as zeros when unallocated. Not behind the disk's
    /// end, up to which the pages of the chain go; the last cluster may.
    private(set) var backingEnd: UInt64
    private(set) var hasBackingFile: Bool
    let state: Lock<ImageState>
    /// Where the bytes of the disk lie in the chain, if it has several QED files. Shared with `lower`.
    private(set) var resolved: ResolvedPages?
    /// Of the raw file at the bottom of the chain, if there is one.
    private(set) var bottomData: SharedKnownData

    /// The cursor's `needCheck`, for those who want to know without the lock and decide nothing by it.
    let needCheckHint: Atomic<NeedCheckState>

    /// Space, the cache or the log want attention: see `EngineQueue.endOfBatch`. Set under the lock, wherever a change may
    /// have caused it.
    let wantsHousekeeping = Atomic<Bool>(false)

    /// Something was written to the file that no sync covers yet; at first that is whatever an earlier process may have
    /// left, or died over: once it has been read here, a flush promises it.
    let isUnsynced: Atomic<Bool>
    /// The errno of a failed sync, which nothing can mend: the kernel may have dropped what it could not write. 0: none.
    let latchedFailure = Atomic<Int32>(0)

    // SAFETY: page-aligned, allocated here and freed in deinit. The header page is touched by whoever extends or
    // trims the image, or before the image is shared; the staging by the leader of the running commit.
    let headerPage: UnsafeMutableRawPointer
    let commitStaging: UnsafeMutableRawPointer
    /// Goes into the header with NEED_CHECK, where there is room for one; nil: without a log.
    let note: SessionNote?
    let hasRoomForNote: Bool
    static let headerPageBytes = 4096
    static let commitStagingPages = 64

    /// Whether the mappings are logged for whoever takes over when this process dies.
    let hasLog: Bool

    /// What became of the log that an earlier process had left.
    private let replay: MappingReplay.Outcome

    /// Changes that were acknowledged, and would have died with the process that served the image before.
    public var replayedChanges: Int { if case .replayed(let records, _) = replay { records } else { 0 } }

    /// Changes that were acknowledged and are gone: a sync had failed, and may have lost their data.
    public var leftOutChanges: Int { if case .replayed(_, let leftOut) = replay { leftOut } else { 0 } }

    /// Why an earlier process's log was not replayed; nil when there was none, or it was.
    public var replayRefusal: String? { if case .rejected(let reason) = replay { reason } else { nil } }

    /// Table entries that named no cluster, left by a crash (NEED_CHECK), and were dropped when the image was opened.
    public let droppedEntries: UInt64

    init(
        layers: [Layer], top: ImageTables, bases: [BaseTables?], resolved: ResolvedPages?, isReadOnly: Bool,
        state: consuming ImageState,
        headerPage: UnsafeMutableRawPointer,
        hasRoomForNote: Bool, note: SessionNote?, replay: MappingReplay.Outcome, droppedEntries: UInt64,
        topSwitch: TopSwitch?, keepsReads: Bool, keptLimitBytes: UInt64?, recorder: ReadRecorder?
    ) {
        self.keepsReads = keepsReads
        self.keptLimitBytes = keptLimitBytes
        self.recorder = recorder
        precondition(bases.count == layers.count - 1, "tables of another chain")
        needCheckHint = Atomic(state.cursor.needCheck)
        self.replay = replay
        self.droppedEntries = droppedEntries
        self.topSwitch = topSwitch
        lower = topSwitch?.lower
        bottomData = topSwitch?.lower.bottomData ?? SharedKnownData()
        self.layers = layers
        self.bases = bases
        self.resolved = resolved
        self.top = top
        self.isReadOnly = isReadOnly
        self.headerPage = headerPage
        self.hasRoomForNote = hasRoomForNote
        self.note = note
        geometry = top.geometry
        let sizeBytes = layers[0].sizeBytes
        sizeNow = Atomic(sizeBytes)
        headerSize = Atomic(sizeBytes)
        hasBackingFile = layers.count > 1
        backingEnd = Image.backingEnd(of: layers)
        commitStaging = .allocate(
            byteCount: Image.commitStagingPages * QEDGeometry.l2PageSizeBytes, alignment: QEDGeometry.l2PageSizeBytes)
        isUnsynced = Atomic(!isReadOnly && !isSabotaged(.trustEarlierWrites))
        hasLog = state.log != nil
        self.state = Lock(state)
    }

    deinit {
        headerPage.deallocate()
        commitStaging.deallocate()
    }

    private static func backingEnd(of layers: [Layer]) -> UInt64 {
        layers.count > 1 ? min(layers[1].sizeBytes, layers[0].sizeBytes) : 0
    }

    /// The chain is another from now on: other files beneath the image, or another size of it. While all queues are quiet; each
    /// is then replaced (`EngineQueue.replacement`) before any of them goes on.
    public func replaceChain(_ next: NextChain) {
        precondition(lower == nil && next.bases.count == next.layers.count - 1, "another chain beside a switch of the top")
        let sizeBytes = next.layers[0].sizeBytes
        precondition(sizeBytes <= top.largestSizeBytes, "a disk of more tables than there is memory for")
        sizeNow.store(sizeBytes, ordering: .relaxed)
        layers = next.layers
        bases = next.bases
        resolved = next.resolved
        hasBackingFile = layers.count > 1
        backingEnd = Image.backingEnd(of: layers)
        // Files beneath may have been written: what was known of their holes is over.
        bottomData = SharedKnownData()
        state.withLock { $0.tellChanges(to: resolved, as: layers.count - 1) }
    }

    /// Begins or ends an extension or a trim: the only way in which `needCheck` changes.
    func withCursor<Result>(_ body: (inout ImageState) -> Result) -> Result {
        state.withLock { state in
            defer { needCheckHint.store(state.cursor.needCheck, ordering: .releasing) }
            return body(&state)
        }
    }

    /// Under the lock, after a change that may have used up space, pages or records.
    @inline(__always)
    func noteWants(of state: borrowing ImageState) {
        if state.wantsExtension || state.wantsCommit { wantsHousekeeping.store(true, ordering: .relaxed) }
    }

    /// Why a sync has failed; nil: none has. Nothing is written any more until the image has been opened again.
    public var failedSync: Errno? {
        let code = latchedFailure.load(ordering: .relaxed)
        return code == 0 ? nil : Errno(rawValue: code)
    }

    /// Somebody else has found that what is written to the image may be lost: as if a sync of it had failed. Any thread.
    public func promiseNothing(_ errno: Errno) {
        precondition(errno.rawValue > 0, "a failure that is none")
        latchedFailure.store(errno.rawValue, ordering: .sequentiallyConsistent)
    }

    /// The errno that every write and flush is answered with since a sync failed.
    var failure: RequestError? {
        failedSync == nil ? nil : .failedEarlier
    }
}

/// What changes in an open image. Guarded by the image's lock.
struct ImageState: ~Copyable {
    var cache: PageCache
    var cursor: AllocationCursor
    var zeroing = FreshSpaceZeroing()
    var fills = ClusterFills()
    var commit = CommitCoordinator<CompletionContinuation>()
    var syncs = SyncCoordinator<CompletionContinuation>()
    /// What a commit has yet to cover, for whoever takes over when this process dies; nil: nobody would.
    var log: MappingLog?
    /// L1 entries whose tables were made since the last commit.
    var unwrittenL1Indexes: [Int] = []
    /// Tasks that wait for a page of the cache, when every one is being loaded or filled; each looks again.
    var slotWaiters: [CompletionContinuation] = []
    /// Tasks that wait for the file to be extended: resumed with 0 or a negative errno.
    var spaceWaiters: [CompletionContinuation] = []
    /// Whether entries were changed since `tick` was last called, and when it last saw that they were. Milliseconds.
    var hasChangedSinceTick = false
    var lastChangeTick: UInt64 = 0

    /// What has to be told of each change of an entry, and under which number the image is known there.
    private var resolved: ResolvedPages?
    private var layerNumber: Int

    init(cache: consuming PageCache, cursor: AllocationCursor, resolved: ResolvedPages?, layerNumber: Int) {
        self.cache = cache
        self.cursor = cursor
        self.resolved = resolved
        self.layerNumber = layerNumber
    }

    mutating func tellChanges(to resolved: ResolvedPages?, as layerNumber: Int) {
        self.resolved = resolved
        self.layerNumber = layerNumber
    }

    /// Changes the L2 entry of a cluster whose page is resident: first in the log, then for everybody.
    /// - Parameter sealedBySync: the sync that must complete before the entry may be written; nil if none.
    mutating func setEntry(
        ofCluster cluster: UInt64, _ pageSlot: Int, to value: UInt64, in tables: ImageTables, sealedBySync: UInt64?
    ) {
        precondition(
            cursor.needCheck.allowsChanges || isSabotaged(.changeBesideTrim),
            "an entry is changed in an image that counts as clean")
        precondition(
            cache[pageSlot].page == Int(truncatingIfNeeded: cluster) / QEDGeometry.entriesPerL2Page, "the entry of another page")
        precondition(value <= L2Entry.zeroValue || value & tables.geometry.clusterMask == 0, "an entry for parts of clusters")
        hasChangedSinceTick = true
        let index = Int(truncatingIfNeeded: cluster) & (QEDGeometry.entriesPerL2Page - 1)
        let oldValue = UInt64(littleEndian: cache.values(ofSlot: pageSlot)[index])
        // Lookups without a lock rely on it.
        precondition(oldValue <= L2Entry.zeroValue, "a cluster that has its place is given another")
        if !(isSabotaged(.forgetLogRecord) && index % 8 == 3) {
            let waitsForData = sealedBySync != nil && !isSabotaged(.recordFillAsFresh)
            log?.append(waitsForData ? .filledEntry : .entry, index: cluster, value: value, oldValue: oldValue)
        }
        cache.setEntry(pageSlot, index: index, to: value, in: tables, sealedBySync: sealedBySync)
        guard let resolved, !isSabotaged(.forgetResolvedEntry) else { return }
        resolved.set(
            value == L2Entry.zeroValue ? .zeros : ResolvedEntry(layerNumber: layerNumber, fileOffset: value),
            deviceOffset: cluster << tables.geometry.clusterShift, byteCount: tables.geometry.clusterSizeBytes)
    }

    /// The tasks that wait for a page of the cache: one may be free now.
    mutating func takeSlotWaiters() -> [CompletionContinuation] {
        let waiters = slotWaiters
        slotWaiters = []
        return waiters
    }

    /// The tasks that wait for the cursor: nothing of it is under way any more.
    mutating func takeSpaceWaiters() -> [CompletionContinuation] {
        let waiters = spaceWaiters
        spaceWaiters = []
        return waiters
    }

    /// The file should be extended before somebody has to wait for it.
    var wantsExtension: Bool { cursor.wantsExtension && cursor.availableClusters > 0 }
    /// A commit would free pages of the cache, or records of the log, before somebody has to wait for them.
    var wantsCommit: Bool { cache.dirtySlots.count > cache.slotCount / 2 || log?.wantsCommit ?? false }

    /// A commit would free pages or records, or one is under way. Not only dirty pages are a reason: where an L1 entry could
    /// not be written the pages are clean, and their records still fill the log.
    var wantsCommitForRoom: Bool {
        if isSabotaged(.overlookUnwrittenTables) { return !cache.dirtySlots.isEmpty || !commit.isIdle }
        return hasDirtyMetadata || !commit.isIdle || log?.lastSequence != log?.committedSequence
    }

    /// No more pages are made dirty before a commit.
    var hasManyDirtyPages: Bool { cache.dirtySlots.count >= cache.slotCount * 3 / 4 }

    /// Whether metadata in memory differs from the file's.
    var hasDirtyMetadata: Bool { !cache.dirtySlots.isEmpty || !unwrittenL1Indexes.isEmpty }
}
