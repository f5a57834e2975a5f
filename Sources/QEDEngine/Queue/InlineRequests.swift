import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// The inline path: requests that find what they need in memory, from their start to the completion of their last transfer.
extension EngineQueue {
    /// Starts a read whose extents can all be found in memory.
    /// - Returns: false when it has to wait for something.
    @inline(never)
    func startRead(_ id: RequestID) -> Bool {
        let request = slots[id].request
        extents.removeAll()
        guard
            map.resolve(request.deviceOffset, to: request.end, beneath: false, judging: false, into: &extents) == .complete
        else { return false }
        // What is to be kept is its task's.
        if image.keepsReads, files.bottomIsRaw,
            extents.hasAny(of: files.layerCount &- 1) || image.keptLimitBytes != nil && extents.hasAny(of: 1)
        {
            return false
        }
        if extents.hasZeros || !files.allTakeRegisteredBuffers {
            // Zeros are laid into the request's memory.
            switch borrowMemory(id) {
            case .done: break
            case .deferred: return true
            case .refused(let result):
                finish(id, result)
                return true
            }
        }
        return startTransfers(id, isWrite: false)
    }

    /// Starts a write that needs nothing but clusters that are allocated, or fresh ones that are at hand, or a copy of what is
    /// known.
    /// - Returns: false when it has to wait for something.
    @inline(never)
    func startWrite(_ id: RequestID) -> Bool {
        let request = slots[id].request
        extents.removeAll()
        switch map.planWrite(request.deviceOffset, to: request.end, into: &extents, beneath: &beneath) {
        case .direct(request.end):
            return startTransfers(id, isWrite: true)
        case .copy(let plan):
            return startCopy(id, plan)
        case .direct, .blocked:
            return false
        }
    }

    /// Starts the transfers of `extents`, with the request's memory or its registered buffer. One that has none is finished.
    /// - Returns: false where it has neither.
    private func startTransfers(_ id: RequestID, isWrite: Bool) -> Bool {
        let request = slots[id].request
        if let buffer = request.buffer {
            slots[id].state = .transferring
            transfers.start(id.transfers, isWrite: isWrite, extents, buffer: buffer, bufferStart: request.deviceOffset)
        } else {
            guard !request.registered.isNone else { return false }
            slots[id].state = .transferring
            transfers.startRegistered(
                id.transfers, isWrite: isWrite, extents, request.registered, bufferStart: request.deviceOffset)
        }
        if transfers.isIdle(id.transfers) { finish(id, 0) }
        return true
    }

    /// Starts the transfer of a request whose bytes lie in one cluster of the image itself.
    /// - Returns: false when they do not, or the cluster is not known to be allocated.
    @inline(__always)
    func startInCluster(_ id: RequestID, isWrite: Bool) -> Bool {
        let offset = slots[id].request.deviceOffset
        let byteCount = slots[id].request.byteCount
        let mask = files.topLookup.geometry.clusterMask
        guard byteCount > 0, (offset & mask) &+ byteCount <= mask &+ 1 else { return false }
        let entry = files.topLookup.entry(at: offset)
        guard entry > PageLookup.invalid else { return false }
        return start(id, .transferring, isWrite: isWrite, byteCount: byteCount, fileOffset: entry &+ (offset & mask))
    }

    /// Starts the one transfer of a request whose bytes lie together in the image's own file.
    /// - Returns: false where it has neither memory nor a registered buffer.
    @inline(__always)
    private func start(
        _ id: RequestID, _ state: RequestSlots.State, isWrite: Bool, byteCount: UInt64, fileOffset: UInt64
    ) -> Bool {
        let bytes = UInt32(truncatingIfNeeded: byteCount)
        if let buffer = slots[id].request.buffer {
            slots[id].state = state
            transfers.startOnly(id.transfers, isWrite: isWrite, buffer, byteCount: bytes, fileOffset: fileOffset)
        } else {
            let registered = slots[id].request.registered
            guard !registered.isNone else { return false }
            slots[id].state = state
            transfers.startRegistered(
                id.transfers, isWrite: isWrite, registered, layer: 0, byteCount: bytes, fileOffset: fileOffset)
        }
        return true
    }

    /// Starts a copy on write: as a plain write where no old content is left, else in a job.
    /// - Returns: false when it is for the request's task.
    private func startCopy(_ id: RequestID, _ plan: CopyPlan) -> Bool {
        let request = slots[id].request
        precondition(slots[id].copy == nil && plan.start == request.deviceOffset, "a second plan, or another request's")
        slots[id].copy = plan
        guard plan.end == request.end else { return false }
        if plan.isWhole {
            return start(id, .covering, isWrite: true, byteCount: request.byteCount, fileOffset: plan.fileOffset)
        }
        guard jobs.canTake(plan, beneath: beneath) else { return false }
        // A job lays the request's data over what lies beneath: it must be in memory.
        switch borrowMemory(id) {
        case .done:
            guard let buffer = slots[id].request.buffer else { return false }
            slots[id].copy = nil
            slots[id].state = .planned
            jobs.append(plan, id, data: buffer, beneath: beneath)
            return true
        case .deferred:
            deferRequest(id)
            return true
        case .refused:
            // Its task asks once more.
            return false
        }
    }

    /// A storage operation with one of this queue's inline tokens has completed.
    @inline(__always)
    public func storageCompleted(_ token: CompletionToken, _ result: Int32) {
        guard transfers.completed(token, result) else { return }
        if token.slot < depth {
            transfersDone(RequestID(tag: token.slot))
        } else {
            groupDone(TransferGroup(number: token.slot))
        }
    }

    @inline(__always)
    private func transfersDone(_ id: RequestID) {
        guard slots[id].state == .transferring, !transfers.hasFailed(id.transfers) else { return transfersEnded(id) }
        if slots[id].request.operation == .write {
            if !isSabotaged(.forgetUnsyncedMark) { files.markUnsynced() }
            if slots[id].request.forcesUnitAccess && !isSabotaged(.ignoreFUA) { return commit(id) }
        }
        finish(id, 0)
    }

    /// The transfers of a request have ended that is the slow path's, or becomes it, or publishes what it has written.
    @inline(never)
    private func transfersEnded(_ id: RequestID) {
        let state = slots[id].state
        precondition(state != .idle && state != .planned, "transfers of no request")
        if state == .slow { return transfers.wakeWaiter(id.transfers) }
        // Of a write that failed some may have been written.
        if slots[id].request.operation == .write { files.markUnsynced() }
        let hasFailed = transfers.takeFailure(id.transfers)
        if state == .covering { coverDone(id, hasFailed: hasFailed) } else { handOver(id) }
    }

    /// A write of whole clusters, which hides what lies beneath them, has completed.
    private func coverDone(_ id: RequestID, hasFailed: Bool) {
        guard var plan = slots[id].copy else { preconditionFailure("a cover without a plan") }
        if hasFailed {
            // What a write that failed has left in the clusters is what is written there once more, or zeros.
            plan.isBegun = true
            slots[id].copy = plan
            handOver(id)
        } else {
            slots[id].copy = nil
            copyDone(id, plan)
        }
    }

    /// The transfers of the commit or of a copy job have completed.
    @inline(never)
    private func groupDone(_ group: TransferGroup) {
        let isOwn = group.number < depth + Self.ownSlotCount
        if group.number == commitGroup || isOwn { return transfers.wakeWaiter(group) }
        // What was the top before has no copies any more, only commits.
        if let below, group.number == below.commitGroup { return transfers.wakeWaiter(group) }
        let job = jobs.job(of: group)
        guard let end = jobs.progressed(job) else { return }
        files.markUnsynced()
        for member in jobs.members(of: job) {
            switch end {
            case .written:
                copyDone(member.id, member.plan)
            case .failed(let isBegun):
                slots[member.id].copy = member.plan
                slots[member.id].copy?.isBegun = isBegun
                handOver(member.id)
            }
        }
        jobs.release(job)
        startJobs()
    }

    /// The data of a copy is in its clusters: publishes them, and answers the request.
    private func copyDone(_ id: RequestID, _ plan: CopyPlan) {
        precondition(
            slots[id].state == .covering || slots[id].state == .planned, "a copy ends that its request does not have")
        files.counters.pointee.filledClusters &+= plan.count
        files.counters.pointee.countAllocation(clusters: plan.count, bytes: plan.sizeBytes)
        for waiter in image.publish(plan) { waiter.resume(returning: 0) }
        if !slots[id].request.forcesUnitAccess || isSabotaged(.ignoreFUA) { finish(id, 0) } else { commit(id) }
    }

    func startJobs() {
        guard jobs.hasPlanned else { return }
        jobs.start { copy in
            slots[copy.id].copy = copy.plan
            handOver(copy.id)
        }
    }
}
