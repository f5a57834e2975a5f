import BlockStorage
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// The engine as one queue sees it: requests go in by slot, results come out, and everything between happens on the
/// thread of the queue's ring.
///
/// Two paths. *Inline*: reads, overwrites and writes to fresh clusters whose L2 pages are in memory become storage
/// operations at once, and their completions finish the request, without a task and without allocating memory. *Slow*:
/// whatever has to wait for something first (a page, space, a copy from the backing file, a commit) is run by the slot's
/// own task. An inline request that fails is run again by the slow path, which knows how to continue short transfers and
/// what to report.
public final class EngineQueue<S: Storage>: @unchecked Sendable {
    // SAFETY: everything here belongs to the thread of the queue's ring; the image behind it is shared and locked.
    public let image: Image
    public let depth: Int
    let executor: any TaskExecutor
    /// What the inline path needs of the image, here so that it follows no reference to it.
    let top: S
    let topLookup: PageLookup
    let sizeBytes: UInt64
    let layers: UnsafeMutablePointer<LayerView>
    let layerCount: Int
    let slots: UnsafeMutablePointer<RequestSlot>
    private let finished: UnsafeMutablePointer<(slot: Int32, result: Int32)>
    private var finishedHead = 0
    private var finishedTail = 0
    /// For the inline path, which never waits: one list is enough.
    var extents: ExtentList
    /// What lies beneath a cluster that is about to be allocated.
    var beneath: ExtentList
    let staging: StagingPool
    /// Fills that wait for the end of the batch, or for a job; in the order of their new clusters.
    var plannedFills: [PlannedFill] = []
    let jobs: UnsafeMutablePointer<FillJob>
    var freeJobs: [Int]
    /// Where the job that is being prepared finds what lies beneath: offsets in its buffer for device offsets.
    var jobExtents: ExtentList
    let extentCapacity: Int
    private(set) var taskCount = 0
    private var isStopping = false

    public internal(set) var statistics = EngineStatistics()
    /// What the housekeeping task has been asked for.
    var housekeeping = Housekeeping()
    /// Brings the data of a write, which is in a registered buffer, into the request's memory; and puts what a read has
    /// in its memory when it finishes where the data belongs. Gets the slot and its request, and returns 0 or a
    /// negative errno.
    public var lendMemory: ((Int, BlockRequest) -> Int32)?

    /// A file of the chain, with what the inline path needs of it in one place.
    struct LayerView {
        var lookup: PageLookup?
        var sizeBytes: UInt64
        /// Length of the file when it was opened.
        var fileSizeBytes: UInt64
        var storage: S
        /// Of a raw file: which part of it is known to be data, and which a hole.
        var data = KnownData()
    }

    /// The kind of the tokens whose completions belong to `storageCompleted`.
    public static var tokenKind: UInt8 { 1 }

    /// - Parameters:
    ///   - storages: this queue's storage of each file of the chain, the image first.
    ///   - depth: how many requests can be under way; their slots are numbered from 0.
    ///   - largestRequestBytes: of reads and writes; larger ones are split by the slow path.
    ///   - executor: runs tasks on this queue's thread, and on no other.
    public init(
        image: Image, storages: [S], depth: Int, largestRequestBytes: Int, executor: any TaskExecutor
    ) {
        precondition(storages.count == image.layers.count, "a storage for each file of the chain")
        precondition(depth > 0, "a queue without slots")
        self.image = image
        self.depth = depth
        self.executor = executor
        top = storages[0]
        topLookup = image.top.lookup
        sizeBytes = image.sizeBytes
        layerCount = storages.count
        layers = .allocate(capacity: storages.count)
        for (index, storage) in storages.enumerated() {
            let (lookup, fileSizeBytes): (PageLookup?, UInt64) =
                switch image.layers[index] {
                case .qed(let layer): (layer.lookup, layer.fileSizeBytes)
                case .raw(let sizeBytes): (nil, sizeBytes)
                }
            (layers + index).initialize(
                to: LayerView(
                    lookup: lookup, sizeBytes: image.layers[index].sizeBytes, fileSizeBytes: fileSizeBytes,
                    storage: storage))
        }
        // More slots than the queue has tags: the housekeeping task's, and one for each fill job.
        slots = .allocate(capacity: depth + 1 + FillJob.limit)
        slots.initialize(repeating: RequestSlot(), count: depth + 1 + FillJob.limit)
        jobs = .allocate(capacity: FillJob.limit)
        jobs.initialize(repeating: FillJob(), count: FillJob.limit)
        freeJobs = Array(0..<FillJob.limit)
        plannedFills.reserveCapacity(depth)
        jobExtents = ExtentList(capacity: FillJob.bufferBytes / Int(QEDLimits.minimumClusterSizeBytes) + 8)
        finished = .allocate(capacity: depth + 1)
        extentCapacity =
            max(largestRequestBytes, FillJob.bufferBytes) / Int(QEDLimits.minimumClusterSizeBytes) + 8
        extents = ExtentList(capacity: extentCapacity)
        beneath = ExtentList(capacity: extentCapacity)
        staging = StagingPool(clusterSizeBytes: image.geometry.clusterSizeBytes)
    }

    deinit {
        layers.deinitialize(count: layerCount)
        layers.deallocate()
        slots.deinitialize(count: depth + 1 + FillJob.limit)
        slots.deallocate()
        finished.deallocate()
        for job in 0..<FillJob.limit { jobs[job].buffer?.deallocate() }
        jobs.deinitialize(count: FillJob.limit)
        jobs.deallocate()
        extents.deallocate()
        beneath.deallocate()
        jobExtents.deallocate()
    }

    var housekeepingSlot: Int { depth }

    // MARK: - Requests in, results out

    /// Starts a request. Its result comes from `nextFinished`, perhaps at once.
    public func start(_ slot: Int, _ request: BlockRequest) {
        precondition(slot >= 0 && slot < depth, "no such slot")
        slots[slot].request = request
        slots[slot].firstError = 0
        if let refusal = refusal(of: request) {
            finish(slot, -refusal.errno.rawValue)
            return
        }
        switch request.operation {
        case .read:
            if startRead(slot) { return }
        case .write:
            if startWrite(slot) { return }
        case .flush:
            if nothingToFlush {
                finish(slot, 0)
                return
            }
        case .discard, .writeZeroes:
            break
        }
        wakeTask(slot)
    }

    /// Answers a request that the engine does not know.
    public func refuse(_ slot: Int, _ errno: Errno) { finish(slot, -errno.rawValue) }

    @inline(__always)
    private func refusal(of request: BlockRequest) -> RequestError? {
        if request.operation != .flush {
            let (end, overflow) = request.deviceOffset.addingReportingOverflow(request.byteCount)
            guard !overflow, end <= sizeBytes,
                (request.deviceOffset | request.byteCount) % QEDLimits.sectorSizeBytes == 0
            else { return .outOfRange }
        }
        if request.operation != .read {
            if image.isReadOnly { return request.operation == .flush ? nil : .readOnly }
            return image.failure
        }
        return nil
    }

    /// A request that is done: its slot, and 0 or a negative errno. Nil when there is none.
    public func nextFinished() -> (slot: Int, result: Int32)? {
        guard finishedHead != finishedTail else { return nil }
        let entry = finished[finishedHead]
        finishedHead = finishedHead == depth ? 0 : finishedHead + 1
        return (Int(entry.slot), entry.result)
    }

    public var hasFinished: Bool { finishedHead != finishedTail }

    @inline(__always)
    func finish(_ slot: Int, _ result: Int32) {
        finished[finishedTail] = (Int32(truncatingIfNeeded: slot), result)
        finishedTail = finishedTail == depth ? 0 : finishedTail + 1
    }

    // MARK: - Storage completions

    /// A storage operation with one of this queue's inline tokens has completed.
    @inline(__always)
    public func storageCompleted(_ token: CompletionToken, _ result: Int32) {
        let slot = token.slot
        let isWhole = result == Int32(truncatingIfNeeded: token.detail) || (isSabotaged(.acceptShortTransfer) && result > 0)
        if !isWhole && slots[slot].firstError == 0 {
            slots[slot].firstError = result < 0 ? result : -Errno.ioError.rawValue
        }
        slots[slot].outstanding &-= 1
        if slots[slot].outstanding == 0 { transfersDone(slot) }
    }

    @inline(__always)
    private func transfersDone(_ slot: Int) {
        if slots[slot].isSlow {
            if slot > housekeepingSlot {
                jobProgressed(slot)
            } else if let waiter = slots[slot].transferWaiter {
                slots[slot].transferWaiter = nil
                waiter.resume(returning: 0)
            }
            return
        }
        let isWrite = slots[slot].request.operation == .write
        if isWrite && !isSabotaged(.forgetUnsyncedMark) { markUnsynced() }
        if slots[slot].fill != nil {
            inlineFillDone(slot)
        } else if slots[slot].firstError != 0 {
            wakeTask(slot)
        } else if isWrite && slots[slot].request.forcesUnitAccess && !isSabotaged(.ignoreFUA) {
            // Not once more: what somebody else has written there meanwhile is newer.
            slots[slot].needsOnlyCommit = !isSabotaged(.writeForcedUnitsTwice)
            wakeTask(slot)
        } else {
            finish(slot, 0)
        }
    }

    /// A write of whole clusters, which hides what lies beneath them, has completed.
    private func inlineFillDone(_ slot: Int) {
        guard let fill = slots[slot].fill else { preconditionFailure("not a fill") }
        slots[slot].fill = nil
        let planned = PlannedFill(slot: slot, fill: fill)
        if slots[slot].firstError == 0 { endFill(planned) } else { handOver(planned, isBegun: true) }
    }

    /// The file holds something that no sync covers. Called after it was written, in part at least, before it is acknowledged.
    @inline(__always)
    func markUnsynced() {
        if !image.isUnsynced.load(ordering: .acquiring) { image.isUnsynced.store(true, ordering: .releasing) }
    }

    /// Starts the transfer of a request whose bytes lie in one cluster of the image itself.
    /// - Returns: false when they do not, or the cluster is not known to be allocated.
    @inline(__always)
    func startInCluster(_ slot: Int, isWrite: Bool) -> Bool {
        let offset = slots[slot].request.deviceOffset
        let byteCount = slots[slot].request.byteCount
        let mask = topLookup.geometry.clusterMask
        guard byteCount > 0, (offset & mask) &+ byteCount <= mask &+ 1, let buffer = slots[slot].request.buffer
        else { return false }
        let entry = topLookup.entry(at: offset)
        guard entry > PageLookup.invalid else { return false }
        slots[slot].isSlow = false
        slots[slot].outstanding = 1
        let bytes = UInt32(truncatingIfNeeded: byteCount)
        if !slots[slot].request.registered.isNone {
            submitRegistered(
                slot, isWrite: isWrite, layer: 0, fileOffset: entry &+ (offset & mask), byteCount: bytes, from: 0)
        } else if isWrite {
            statistics.dataWrites &+= 1
            top.submit(
                .write(buffer, byteCount: bytes, fileOffset: entry &+ (offset & mask)), token: dataToken(slot, byteCount: bytes))
        } else {
            statistics.dataReads &+= 1
            top.submit(
                .read(buffer, byteCount: bytes, fileOffset: entry &+ (offset & mask)), token: dataToken(slot, byteCount: bytes))
        }
        return true
    }

    @inline(__always)
    func dataToken(_ slot: Int, byteCount: UInt32) -> CompletionToken {
        CompletionToken(kind: EngineQueue.tokenKind, slot: slot, detail: byteCount)
    }

    /// Submits the data transfers of a request whose extents are known; each counts as outstanding.
    func submit(_ list: ExtentList, slot: Int, isWrite: Bool, buffer: UnsafeMutableRawPointer, bufferStart: UInt64) {
        for index in 0..<list.count {
            let extent = list[index]
            let position = buffer + Int(truncatingIfNeeded: extent.deviceOffset &- bufferStart)
            if extent.layer == Extent.zeros {
                position.initializeMemory(as: UInt8.self, repeating: 0, count: Int(extent.byteCount))
                continue
            }
            slots[slot].outstanding &+= 1
            let token = dataToken(slot, byteCount: extent.byteCount)
            let storage = layers[Int(extent.layer)].storage
            if isWrite {
                statistics.dataWrites &+= 1
                storage.submit(
                    .write(position, byteCount: extent.byteCount, fileOffset: extent.fileOffset), token: token)
            } else {
                statistics.dataReads &+= 1
                storage.submit(
                    .read(position, byteCount: extent.byteCount, fileOffset: extent.fileOffset), token: token)
            }
        }
    }

    // MARK: - The slots' tasks

    /// Hands a slot's request to its task.
    func wakeTask(_ slot: Int) {
        slots[slot].isSlow = true
        if slot != housekeepingSlot { statistics.slowRequests &+= 1 }
        if !slots[slot].hasTask {
            slots[slot].hasTask = true
            slots[slot].isWoken = true
            startTask { await self.runTask(slot) }
        } else if let parked = slots[slot].parked {
            slots[slot].parked = nil
            parked.resume(returning: 0)
        } else {
            slots[slot].isWoken = true
        }
    }

    private func runTask(_ slot: Int) async {
        while await park(slot) {
            if slot == housekeepingSlot {
                await keepHouse()
                continue
            }
            let result = await performSlowly(slot)
            slots[slot].isSlow = false
            finish(slot, result)
        }
    }

    /// Runs something on this queue's thread. The queue does not stop before its end.
    func startTask(_ body: @escaping () async -> Void) {
        taskCount += 1
        // SAFETY: the task runs on this queue's thread only: its executor preference says so, and nothing below leaves it.
        nonisolated(unsafe) let body = body
        Task(executorPreference: executor) {
            await body()
            self.taskCount -= 1
        }
    }

    /// Waits for the slot's next slow request.
    /// - Returns: false when the queue is stopping.
    private func park(_ slot: Int) async -> Bool {
        if slots[slot].isWoken {
            slots[slot].isWoken = false
            return true
        }
        if isStopping { return false }
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            slots[slot].parked = continuation
        }
        if slots[slot].isWoken {
            slots[slot].isWoken = false
            return true
        }
        return !isStopping
    }

    /// Ends the slots' tasks. Call it when no request is under way, then run the executor until `isStopped`.
    public func stop() {
        isStopping = true
        for slot in 0...depth {
            if let parked = slots[slot].parked {
                slots[slot].parked = nil
                parked.resume(returning: 0)
            }
        }
    }

    public var isStopped: Bool { isStopping && taskCount == 0 }

    /// Suspends the slot's task until its transfers have completed.
    func transfersCompleted(_ slot: Int) async {
        guard slots[slot].outstanding > 0 else { return }
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            slots[slot].transferWaiter = continuation
        }
    }
}
