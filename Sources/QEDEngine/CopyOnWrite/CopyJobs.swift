import BlockStorage
import Glibc
import QEDFormat

/// Copy-on-write at rate: the copies that one turn of the loop has planned are performed in jobs, without tasks.
///
/// What a job cannot do (clusters larger than its buffer, an error) is left to the requests' tasks. A job reads where the
/// plans say that the old content lies; nothing is looked up twice.
struct CopyJobs<S: Storage>: @unchecked Sendable {
    // SAFETY: belongs to one queue, and to its thread.

    /// How a job has ended; its members are the queue's to end.
    enum End {
        /// All is in the file.
        case written
        /// Something could not be read, or written. Each of its copies is performed by its request's task, on the clusters
        /// that it has, so that only those fail that meet the error, and the clusters of the others are not leaked.
        case failed(isBegun: Bool)
    }

    private let files: QueueFiles<S>
    private let transfers: Transfers<S>
    private let firstGroup: Int
    /// Copies that wait for the end of the batch, or for a job; in the order of their new clusters.
    private var planned: [PlannedCopy] = []
    /// Where the old content of their clusters lies, in the same order: device offsets.
    private var beneath: [Extent] = []
    private var jobs: [CopyJob]
    private var free: [JobID]
    /// Where the job that is being prepared reads: offsets in its buffer for device offsets.
    private var reads: ExtentList
    /// Where the job that is being written goes: file offsets for offsets in its buffer.
    private var writes: ExtentList

    /// - Parameter firstGroup: of the transfer groups of the jobs, one for each.
    init(files: QueueFiles<S>, transfers: Transfers<S>, firstGroup: Int, depth: Int) {
        self.files = files
        self.transfers = transfers
        self.firstGroup = firstGroup
        precondition(firstGroup > 0 && depth > 0, "the groups of jobs are those of requests")
        jobs = Array(repeating: CopyJob(), count: CopyJob.limit)
        free = (0..<CopyJob.limit).map { JobID(index: $0) }
        planned.reserveCapacity(depth)
        reads = ExtentList(capacity: CopyJob.bufferBytes / Int(QEDLimits.minimumClusterSizeBytes) + 8)
        writes = ExtentList(capacity: CopyJob.bufferBytes / Int(QEDLimits.minimumClusterSizeBytes))
    }

    func deallocate() {
        for job in jobs { job.buffer?.deallocate() }
        reads.deallocate()
        writes.deallocate()
    }

    private func group(_ job: JobID) -> TransferGroup { TransferGroup(number: firstGroup + job.index) }

    /// The job whose transfers are counted in the group.
    func job(of group: TransferGroup) -> JobID {
        precondition(group.number >= firstGroup && group.number < firstGroup + CopyJob.limit, "not the group of a job")
        return JobID(index: group.number - firstGroup)
    }

    var hasPlanned: Bool { !planned.isEmpty }

    // MARK: - Planning

    /// Whether a copy can be done by a job: not larger than its buffer, and all that lies beneath its clusters is known.
    /// - Parameter list: what lies beneath from the plan's first cluster on, in order.
    func canTake(_ plan: CopyPlan, beneath list: ExtentList) -> Bool {
        guard plan.sizeBytes <= UInt64(CopyJob.bufferBytes), list.count > 0, list[0].deviceOffset == plan.clustersStart
        else { return false }
        let last = list[list.count - 1]
        return last.deviceOffset + UInt64(last.byteCount) >= plan.clustersEnd
    }

    /// Performs the copy in a job from the end of this batch on.
    mutating func append(_ plan: CopyPlan, _ id: RequestID, data: UnsafeMutableRawPointer, beneath list: ExtentList) {
        precondition(canTake(plan, beneath: list), "a copy that no job can do")
        let first = beneath.count
        for index in 0..<list.count where list[index].deviceOffset < plan.clustersEnd { beneath.append(list[index]) }
        planned.append(PlannedCopy(id: id, plan: plan, data: data, beneathCount: beneath.count - first))
    }

    // MARK: - Performing

    /// Starts as many jobs as there are buffers; the rest goes when one of them ends.
    /// - Parameter cannot: gets the copies that no job can do after all.
    mutating func start(cannot: (PlannedCopy) -> Void) {
        while !planned.isEmpty, let job = free.popLast() {
            var taken = 0
            var looked = 0
            reads.removeAll()
            precondition(jobs[job.index].members.isEmpty && jobs[job.index].byteCount == 0, "a free job with copies in it")
            for copy in planned {
                guard jobs[job.index].takes(copy.plan) else { break }
                let extents = looked..<looked + copy.beneathCount
                looked = extents.upperBound
                taken += 1
                if addReads(of: copy.plan, extents, jobOffset: UInt64(jobs[job.index].byteCount)) {
                    jobs[job.index].append(copy)
                } else {
                    cannot(copy)
                    break
                }
            }
            planned.removeFirst(taken)
            // With them, not when there are none: under steady load there always are some.
            beneath.removeFirst(looked)
            precondition(!planned.isEmpty || beneath.isEmpty, "extents of no copy")
            if jobs[job.index].members.isEmpty { free.append(job) } else { read(job) }
        }
    }

    /// Adds to `reads` where the old content of a plan's clusters is; the clusters will lie at `jobOffset` in the job's buffer.
    ///
    /// A small request's own part is read too, so that the clusters of neighbours become one read.
    /// - Returns: false when the list is full; nothing was added then.
    private mutating func addReads(of plan: CopyPlan, _ extents: Range<Int>, jobOffset: UInt64) -> Bool {
        precondition(jobOffset + plan.sizeBytes <= UInt64(CopyJob.bufferBytes), "clusters behind the job's buffer")
        let dataIsSmall = (plan.end - plan.start) * 4 <= plan.sizeBytes
        var head = plan.clustersStart..<(dataIsSmall ? plan.clustersEnd : plan.start)
        var tail = (dataIsSmall ? plan.clustersEnd : plan.end)..<plan.clustersEnd
        if isSabotaged(.fillWithoutHead) { (head, tail) = (plan.start..<plan.start, plan.end..<plan.clustersEnd) }
        if isSabotaged(.fillWithoutTail) { (head, tail) = (plan.clustersStart..<plan.start, plan.end..<plan.end) }
        // A zero cluster at the end hides what lies beneath.
        let hiddenFrom = plan.tailIsZeros ? plan.clustersEnd - (1 << plan.clusterShift) : plan.clustersEnd
        let before = reads.mark
        if add(head, of: plan, extents, hiddenFrom, jobOffset), add(tail, of: plan, extents, hiddenFrom, jobOffset) {
            return true
        }
        reads.rewind(to: before)
        return false
    }

    private mutating func add(
        _ range: Range<UInt64>, of plan: CopyPlan, _ extents: Range<Int>, _ hiddenFrom: UInt64, _ jobOffset: UInt64
    ) -> Bool {
        guard !range.isEmpty else { return true }
        precondition(range.lowerBound >= plan.clustersStart && range.upperBound <= plan.clustersEnd, "outside the plan")
        let base = plan.clustersStart
        for extent in beneath[extents] {
            let start = max(extent.deviceOffset, range.lowerBound)
            let end = min(extent.deviceOffset + UInt64(extent.byteCount), range.upperBound, hiddenFrom)
            guard start < end else { continue }
            let fileOffset = extent.layer == Extent.zeros ? 0 : extent.fileOffset + (start - extent.deviceOffset)
            let added = reads.append(
                layer: extent.layer, fileOffset: fileOffset, deviceOffset: start - base + jobOffset, byteCount: end - start)
            guard added else { return false }
        }
        let hidden = max(hiddenFrom, range.lowerBound)
        guard hidden < range.upperBound else { return true }
        return reads.append(
            layer: Extent.zeros, fileOffset: 0, deviceOffset: hidden - base + jobOffset, byteCount: range.upperBound - hidden)
    }

    private mutating func read(_ job: JobID) {
        precondition(jobs[job.index].state == .free, "a job that reads twice")
        let buffer =
            jobs[job.index].buffer
            ?? .allocate(byteCount: CopyJob.bufferBytes, alignment: CopyJob.bufferAlignmentBytes)
        jobs[job.index].buffer = buffer
        jobs[job.index].state = .reading
        transfers.start(group(job), isWrite: false, reads, buffer: buffer, bufferStart: 0)
        if transfers.isIdle(group(job)) { write(job) }
    }

    /// The transfers of a job have completed.
    /// - Returns: how it has ended; nil when it goes on. Its members are `members(of:)` until `release`.
    mutating func progressed(_ job: JobID) -> End? {
        precondition(transfers.isIdle(group(job)), "a job that goes on beside its transfers")
        let isWriting = jobs[job.index].state == .writing
        if transfers.takeFailure(group(job)) { return .failed(isBegun: isWriting) }
        if isWriting { return .written }
        write(job)
        return nil
    }

    private mutating func write(_ job: JobID) {
        guard let buffer = jobs[job.index].buffer, jobs[job.index].state == .reading else {
            preconditionFailure("a job that has not read")
        }
        writes.removeAll()
        var jobOffset: UInt64 = 0
        for member in jobs[job.index].members {
            let plan = member.plan
            memcpy(buffer + Int(jobOffset + (plan.start - plan.clustersStart)), member.data, Int(plan.end - plan.start))
            let added = writes.append(
                layer: 0, fileOffset: plan.fileOffset, deviceOffset: jobOffset, byteCount: plan.sizeBytes)
            precondition(added, "more clusters than the buffer has")
            jobOffset += plan.sizeBytes
        }
        precondition(jobOffset == UInt64(jobs[job.index].byteCount), "a job that is not its members")
        jobs[job.index].state = .writing
        files.counters.pointee.fills &+= 1
        transfers.start(group(job), isWrite: true, writes, buffer: buffer, bufferStart: 0)
    }

    func members(of job: JobID) -> [PlannedCopy] { jobs[job.index].members }

    /// The job's members have been ended: it is free again.
    mutating func release(_ job: JobID) {
        precondition(jobs[job.index].state != .free, "a job that was not begun")
        jobs[job.index].reset()
        free.append(job)
    }
}
