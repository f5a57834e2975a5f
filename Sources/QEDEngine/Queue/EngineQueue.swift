import BlockStorage
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// The engine as one queue sees it: requests go in by tag, results come out, and everything between happens on the
/// thread of the queue's ring.
///
/// Two paths. *Inline*: reads, overwrites and writes to fresh clusters whose L2 pages are in memory become storage
/// operations at once, and their completions finish the request, without a task and without allocating memory. *Slow*
/// (`SlowRequests`): whatever has to wait for something first (a page, space, a copy from the backing file, a commit) is run
/// by the request's own task. An inline request that fails is run again by the slow path, which knows how to continue short
/// transfers and what to report.
public final class EngineQueue<S: Storage>: @unchecked Sendable {
    // SAFETY: everything here belongs to the thread of the queue's ring; the image behind it is shared and locked.
    public let image: Image
    public let depth: Int
    /// The device's.
    private let sizeBytes: UInt64
    private let largestRequestBytes: Int
    private let executor: any TaskExecutor
    let files: QueueFiles<S>
    let map: ChainMap<S>
    let transfers: Transfers<S>
    let slots: RequestSlots
    private var finished: FinishedRequests
    /// For the inline path, which never waits: one list is enough.
    var extents: ExtentList
    /// What lies beneath clusters that are about to be allocated.
    var beneath: ExtentList
    var jobs: CopyJobs<S>
    let tasks: QueueTasks
    let committer: Committer<S>
    let slow: SlowRequests<S>
    let housekeeper: Housekeeper<S>
    let extender: SpaceExtender<S>
    /// See `beginOwnWork`.
    var hasOwnWork = false
    /// The queue of what was the top before (`TopSwitch`), which has no requests any more: as long as that is not durable, or
    /// pages are in its cache.
    private(set) var below: EngineQueue<S>?
    /// One that was `below`, as long as its tasks have not ended: they hold it, and nobody else.
    private weak var retired: EngineQueue<S>?
    /// Of the images that were the top before, and are files like others now, or gone: the figure only grows.
    private var evictionsBelow: UInt64 = 0
    /// Another queue has taken over from this one, and has the memory that both used.
    private var wasTakenOver = false
    /// The group of the commit; behind it come those of the copy jobs. Two queues of which one has taken over from the other
    /// have different ones.
    let commitGroup: Int

    /// Lends memory to a request whose data is in a registered buffer: that of a write has its data, and what is in that of a
    /// read when it finishes is put where the data belongs. Gets the tag and its request.
    public var lendMemory: ((Int, BlockRequest) -> MemoryLoan)?

    /// The kind of the tokens whose completions belong to `storageCompleted`.
    public static var tokenKind: UInt8 { 1 }

    /// - Parameters:
    ///   - storages: this queue's, of each file of the chain.
    ///   - depth: how many requests can be under way; their tags count from 0.
    ///   - largestRequestBytes: of reads and writes; larger ones are split by the slow path.
    ///   - executor: runs tasks on this queue's thread, and on no other.
    ///   - below: the queue from which this one takes over, of the image that was the top until now, with the same depth. All
    ///     queues of that image are quiet.
    public convenience init(
        image: Image, storages: ChainStorage<S>, depth: Int, largestRequestBytes: Int, executor: any TaskExecutor,
        over below: EngineQueue<S>? = nil
    ) {
        self.init(
            image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes, executor: executor,
            after: below, retiring: false)
    }

    /// - Parameters:
    ///   - last: the queue from which this one takes over.
    ///   - retiring: nobody has anything to do any more with what that one served, or it has become this one's.
    private init(
        image: Image, storages: ChainStorage<S>, depth: Int, largestRequestBytes: Int, executor: any TaskExecutor,
        after last: EngineQueue<S>?, retiring: Bool
    ) {
        let below = retiring ? nil : last
        precondition(depth > 0 && largestRequestBytes > 0, "a queue for no requests")
        precondition(below?.image === image.lower, "an image that lies over another one than its queue")
        precondition(last.map { !$0.hasRequests && $0.isQuiet && $0.depth == depth } ?? true, "a queue that is not quiet")
        precondition(!retiring || last?.below == nil, "a queue retires that another one's commits need")
        self.image = image
        self.depth = depth
        self.largestRequestBytes = largestRequestBytes
        self.executor = executor
        sizeBytes = image.sizeBytes
        files = QueueFiles(image: image, storages: storages, counters: last?.files.counters, over: below?.files)
        map = ChainMap(files: files)
        slots = RequestSlots(depth: depth + Self.ownSlotCount)
        finished = FinishedRequests(depth: depth)
        // Those of the requests are their tags, then own work's; then come the commit's, and those of the copy jobs, twice.
        let firstGroup = depth + Self.ownSlotCount
        let groupCount = firstGroup + 2 * (1 + CopyJob.limit)
        transfers = Transfers(files: files, groupCount: groupCount, own: depth..<firstGroup, sharing: last?.transfers)
        commitGroup = last.map { $0.commitGroup == firstGroup ? firstGroup + 1 + CopyJob.limit : firstGroup } ?? firstGroup
        jobs = CopyJobs(files: files, transfers: transfers, firstGroup: commitGroup + 1, depth: depth)
        let capacity = max(largestRequestBytes, CopyJob.bufferBytes) / Int(QEDLimits.minimumClusterSizeBytes) + 8
        extents = ExtentList(capacity: capacity)
        beneath = ExtentList(capacity: capacity)
        tasks = QueueTasks(executor: executor)
        committer = Committer(
            files: files, transfers: transfers, group: TransferGroup(number: commitGroup), tasks: tasks,
            below: below?.committer)
        extender = SpaceExtender(files: files, committer: committer)
        housekeeper = Housekeeper(image: image, committer: committer, extender: extender, tasks: tasks)
        let lists = ExtentListPool(capacity: capacity)
        let staging = StagingPool(clusterSizeBytes: image.geometry.clusterSizeBytes)
        let pages = PageLoader(files: files, committer: committer)
        let resolver = PageResolver(files: files, transfers: transfers)
        let reader = ChainReader(
            map: map, slots: slots, pages: pages, resolver: resolver, transfers: transfers, lists: lists)
        slow = SlowRequests(
            map: map, slots: slots, reader: reader, transfers: transfers,
            copier: Copier(files: files, reader: reader, slots: slots, staging: staging), committer: committer,
            extender: extender, pages: pages, lists: lists, staging: staging)
        self.below = below
        evictionsBelow = last?.evictionsBelow ?? 0
        if retiring, let gone = last?.image, gone !== image { evictionsBelow &+= gone.cacheUse.l2.evictions }
        last?.wasTakenOver = true
        guard retiring else { return }
        retired = last
        last?.stop()
    }

    deinit {
        extents.deallocate()
        beneath.deallocate()
        jobs.deallocate()
        if !wasTakenOver { transfers.deallocate() }
        finished.deallocate()
        slots.deallocate()
        files.deallocate(keepingCounters: wasTakenOver)
    }

    public var statistics: EngineStatistics { files.counters.pointee }

    /// What the image's tables take in memory, and those of what was the top before, as long as that is another image. On the
    /// queue's thread; all queues of the image say the same.
    public var cacheUse: CacheUse {
        var use = image.cacheUse
        if let below { use.l2 = use.l2 + below.image.cacheUse.l2 }
        use.l2.evictions &+= evictionsBelow
        return use
    }

    // MARK: - Requests in, results out

    /// Starts a request. Its result comes from `nextFinished`, perhaps at once.
    public func start(_ tag: Int, _ request: BlockRequest) {
        precondition(UInt(bitPattern: tag) < UInt(bitPattern: depth), "no such tag")
        let id = RequestID(tag: tag)
        precondition(slots[id].state == .idle, "the tag has a request")
        slots[id].request = request
        if let refusal = refusal(of: request) {
            finish(id, -refusal.errno.rawValue)
            return
        }
        switch request.operation {
        case .read:
            if startInCluster(id, isWrite: false) || startRead(id) { return }
        case .write:
            if startInCluster(id, isWrite: true) || startWrite(id) { return }
        case .flush:
            if committer.nothingToFlush {
                finish(id, 0)
                return
            }
        case .discard, .writeZeroes:
            break
        }
        handOver(id)
    }

    /// Answers a request that the engine does not know.
    public func refuse(_ tag: Int, _ errno: Errno) { finish(RequestID(tag: tag), -errno.rawValue) }

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

    /// A request that is done: its tag, and 0 or a negative errno. Nil when there is none.
    public func nextFinished() -> (slot: Int, result: Int32)? {
        guard let (tag, result) = finished.popFirst() else { return nil }
        return (tag, result)
    }

    public var hasFinished: Bool { !finished.isEmpty }

    @inline(__always)
    func finish(_ id: RequestID, _ result: Int32) {
        slots[id].state = .idle
        finished.append(id, result)
    }

    // MARK: - The slow path

    /// Hands a request to its task.
    @inline(never)
    func handOver(_ id: RequestID) { wakeTask(id, .slow) }

    /// What is left to do is to make the data durable. It is not written once more: what somebody else has written there
    /// meanwhile is newer.
    @inline(never)
    func commit(_ id: RequestID) { wakeTask(id, isSabotaged(.writeForcedUnitsTwice) ? .slow : .committing) }

    private func wakeTask(_ id: RequestID, _ state: RequestSlots.State) {
        precondition(transfers.isIdle(id.transfers), "a task beside transfers")
        precondition(slots[id].state != .slow && slots[id].state != .committing, "a request is handed over twice")
        slots[id].state = state
        files.counters.pointee.slowRequests &+= 1
        if slots[id].task.wake() { tasks.start { await self.runTask(id) } }
    }

    private func runTask(_ id: RequestID) async {
        while true {
            precondition(!tasks.isStopped, "a request's task goes on behind its queue's end")
            while slots[id].task.begin() {
                if let result = await performSlowly(id) { finish(id, result) }
            }
            if tasks.isStopping { return }
            _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
                slots[id].task.park(continuation)
            }
        }
    }

    /// - Returns: nil: the request waits for memory, and is not the queue's until it is started again.
    private func performSlowly(_ id: RequestID) async -> Int32? {
        let isInFile = slots[id].state == .committing
        precondition(isInFile || slots[id].state == .slow, "a task works on a request that it does not have")
        // From here on the task's own transfers are under way.
        slots[id].state = .slow
        if !isInFile {
            switch borrowMemory(id) {
            case .done: break
            case .deferred:
                deferRequest(id)
                return nil
            case .refused(let result):
                abandonCopy(id)
                return result
            }
        }
        return await slow.perform(id, isInFile: isInFile)
    }

    /// Gives up the copy that the inline path has planned for the request's task.
    private func abandonCopy(_ id: RequestID) {
        guard let plan = slots[id].copy else { return }
        slots[id].copy = nil
        for waiter in image.abandon(plan) { waiter.resume(returning: 0) }
    }

    enum Borrowing {
        /// The data is in memory.
        case done
        /// The request is to be left (`deferRequest`).
        case deferred
        /// The negative errno that the request is to be answered with.
        case refused(Int32)
    }

    /// Has the request's data in memory from now on, where it is not already: pages of the kernel that are registered with
    /// the ring can be taken and filled by a file, and not be touched by this process.
    func borrowMemory(_ id: RequestID) -> Borrowing {
        let request = slots[id].request
        if request.registered.isNone { return .done }
        guard let lendMemory else { preconditionFailure("a registered buffer, and nobody who lends memory for it") }
        switch lendMemory(id.tag, request) {
        case .lent(let buffer):
            files.counters.pointee.borrowedRequests &+= 1
            slots[id].request.buffer = buffer
            slots[id].request.registered = .none
            return .done
        case .deferred: return .deferred
        case .refused(let result): return .refused(result)
        }
    }

    /// Leaves a request that waits for memory: it will be started again, with memory. What was planned for it is given up, for
    /// whoever has memory may be waiting for that.
    func deferRequest(_ id: RequestID) {
        abandonCopy(id)
        precondition(transfers.isIdle(id.transfers), "a request is left whose data moves")
        slots[id].state = .idle
    }

    // MARK: - Between batches, and the end

    /// Called between batches, and before the queue waits: starts the copies that the batch has planned; extends the file, or
    /// commits, before somebody has to wait for it.
    @inline(__always)
    public func endOfBatch() {
        startJobs()
        if image.wantsHousekeeping.load(ordering: .relaxed) { housekeeper.lookAround() }
    }

    /// Looks at the time. Called about once a second by the owner of one queue of the image.
    /// - Parameter now: milliseconds of a clock that does not go back; more than 0.
    public func tick(_ now: UInt64) { housekeeper.tick(now) }

    /// Whether `tick` still has something to wait for: nothing while the image is clean and trimmed.
    public var needsTick: Bool { housekeeper.needsTick }

    /// Whether nothing is under way but requests: no background commit, extension or trim. It stays so until the next
    /// request, `tick` or `endOfBatch`.
    public var isQuiet: Bool {
        (!housekeeper.isRunning || isSabotaged(.quietBesideHousekeeping)) && !jobs.hasPlanned && !hasOwnWork
    }

    /// Makes everything durable, gives back what was extended ahead, and marks the image as clean. The last thing that is
    /// done with a writable image, by one queue, when no request is under way on any.
    /// - Throws: what went wrong; the image is then as after a crash: sound, and checked when it is next opened.
    public func close() async throws(RequestError) { try await housekeeper.close() }

    /// Whether a request is under way: started, and not finished. Looks at every tag.
    public var hasRequests: Bool { (0..<depth).contains { slots[RequestID(tag: $0)].state != .idle } }

    /// Ends the requests' tasks. Then run the executor until `isStopped`. No request is under way: the storage would go on to
    /// use its buffer, and nobody would know when that is over.
    public func stop() {
        precondition(!hasRequests, "stopped with requests under way")
        tasks.stop()
        for tag in 0..<depth { slots[RequestID(tag: tag)].task.release() }
        below?.stop()
    }

    public var isStopped: Bool { tasks.isStopped && below?.isStopped ?? true && retired?.isStopped ?? true }

    // MARK: - A switch of the top, or of the chain

    /// A queue like this one that takes its place: the image has another chain from now on, or is itself another one, and what
    /// this one served is nobody's any more. While all queues are quiet.
    public func replacement(for image: Image, storages: ChainStorage<S>) -> EngineQueue<S> {
        let next = EngineQueue(
            image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes, executor: executor,
            after: self, retiring: true)
        next.lendMemory = lendMemory
        return next
    }

    /// A queue like this one for an image that lies over this one's, which takes over from it. While all queues are quiet.
    public func successor(for image: Image, storages: ChainStorage<S>) -> EngineQueue<S> {
        EngineQueue(
            image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes, executor: executor,
            over: self)
    }

    /// Makes what was the top before a sound image of its own: commits it, cuts it to its last cluster and marks it as clean,
    /// and makes the names of both files durable. Then it is durable whatever becomes of this image. By one queue.
    /// - Throws: what went wrong. It can be tried again; until it is done, flushes of this image try, too.
    public func sealLower() async throws(RequestError) {
        guard let below else { preconditionFailure("nothing was switched, or its tables have been adopted") }
        defer { committer.noteFailureBelow() }
        try await below.close()
        try await committer.settleSwitch()
    }

    /// The same in a task of its own, which the queue's end waits for.
    /// - Parameter ended: called on the queue's thread, with what went wrong.
    public func beginSealingLower(_ ended: @escaping (RequestError?) -> Void) {
        tasks.start {
            do throws(RequestError) {
                try await self.sealLower()
                ended(nil)
            } catch {
                ended(error)
            }
        }
    }

    /// The image has adopted its layers' tables (`Image.adopt`): lets go of the queue below. On the queue's thread, before any
    /// queue of the image goes on.
    public func adoptTables() {
        precondition(!hasRequests && isQuiet && image.lower == nil, "tables change under a request")
        files.adoptTables()
        committer.below = nil
        below?.stop()
        evictionsBelow &+= below?.image.cacheUse.l2.evictions ?? 0
        retired = below
        below = nil
    }
}
