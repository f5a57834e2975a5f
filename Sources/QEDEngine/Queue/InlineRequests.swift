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
            map.resolve(request.deviceOffset, to: request.end, fromLayer: 0, judging: false, into: &extents) == .complete,
            let buffer = request.buffer
        else { return false }
        if extents.hasZeros || !files.allTakeRegisteredBuffers {
            // Zeros are laid into the request's memory.
            let lent = borrowMemory(id)
            guard lent == 0 else {
                finish(id, lent)
                return true
            }
        }
        startTransfers(id, isWrite: false, buffer)
        return true
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
            guard let buffer = request.buffer else { return false }
            startTransfers(id, isWrite: true, buffer)
            return true
        case .copy(let plan):
            return startCopy(id, plan)
        case .direct, .blocked:
            return false
        }
    }

    /// Starts the transfers of `extents`, with the request's registered buffer or its memory. One that has none is finished.
    private func startTransfers(_ id: RequestID, isWrite: Bool, _ buffer: UnsafeMutableRawPointer) {
        let request = slots[id].request
        slots[id].state = .transferring
        if request.registered.isNone {
            transfers.start(id.transfers, isWrite: isWrite, extents, buffer: buffer, bufferStart: request.deviceOffset)
        } else {
            transfers.startRegistered(
                id.transfers, isWrite: isWrite, extents, request.registered, bufferStart: request.deviceOffset)
        }
        if transfers.isIdle(id.transfers) { finish(id, 0) }
    }

    /// Starts the transfer of a request whose bytes lie in one cluster of the image itself.
    /// - Returns: false when they do not, or the cluster is not known to be allocated.
    @inline(__always)
    func startInCluster(_ id: RequestID, isWrite: Bool) -> Bool {
        let offset = slots[id].request.deviceOffset
        let byteCount = slots[id].request.byteCount
        let mask = files.topLookup.geometry.clusterMask
        guard byteCount > 0, (offset & mask) &+ byteCount <= mask &+ 1, let buffer = slots[id].request.buffer
        else { return false }
        let entry = files.topLookup.entry(at: offset)
        guard entry > PageLookup.invalid else { return false }
        slots[id].state = .transferring
        start(id, isWrite: isWrite, buffer, byteCount: byteCount, fileOffset: entry &+ (offset & mask))
        return true
    }

    /// Starts the one transfer of a request whose bytes lie together in the image's own file.
    @inline(__always)
    private func start(
        _ id: RequestID, isWrite: Bool, _ buffer: UnsafeMutableRawPointer, byteCount: UInt64, fileOffset: UInt64
    ) {
        let bytes = UInt32(truncatingIfNeeded: byteCount)
        let registered = slots[id].request.registered
        if registered.isNone {
            transfers.startOnly(id.transfers, isWrite: isWrite, buffer, byteCount: bytes, fileOffset: fileOffset)
        } else {
            transfers.startRegistered(
                id.transfers, isWrite: isWrite, registered, layer: 0, byteCount: bytes, fileOffset: fileOffset)
        }
    }

    /// Starts a copy on write: as a plain write where no old content is left, else in a job.
    /// - Returns: false when it is for the request's task.
    private func startCopy(_ id: RequestID, _ plan: CopyPlan) -> Bool {
        let request = slots[id].request
        if plan.end == request.end, let buffer = request.buffer {
            if plan.isWhole {
                slots[id].copy = plan
                slots[id].state = .covering
                start(id, isWrite: true, buffer, byteCount: request.byteCount, fileOffset: plan.fileOffset)
                return true
            }
            // A job lays the request's data over what lies beneath: it must be in memory.
            if jobs.canTake(plan, beneath: beneath), borrowMemory(id) == 0 {
                slots[id].state = .planned
                jobs.append(plan, id, data: buffer, beneath: beneath)
                return true
            }
        }
        slots[id].copy = plan
        return false
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
        if group.number == depth { return transfers.wakeWaiter(group) }
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
        files.counters.pointee.filledClusters &+= plan.count
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
