import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// Writing: in place where clusters are allocated, into fresh clusters where nothing lies beneath, and through a fill
/// where the backing file has data.
extension EngineQueue {
    /// What can be done for the beginning of a range.
    enum WritePlan {
        /// Everything up to here has its place: the extents are in the list.
        case direct(end: UInt64)
        /// Clusters must be copied from the backing file: reserved and registered, to be performed now.
        case fill(Fill)
        case missing(deviceOffset: UInt64)
        case invalid(deviceOffset: UInt64)
        /// The file must be extended by this many clusters.
        case needsSpace(clusters: Int)
        /// Another request fills this cluster.
        case busy(cluster: UInt64)
        /// The cache is full of dirty pages.
        case commitFirst
    }

    /// Starts a write that needs nothing but clusters that are allocated, or fresh ones that are at hand.
    /// - Returns: false when it has to wait for something.
    func startWrite(_ slot: Int) -> Bool {
        if startInCluster(slot, isWrite: true) { return true }
        let request = slots[slot].request
        extents.removeAll()
        switch planWrite(request.deviceOffset, to: request.end, into: &extents) {
        case .direct(request.end):
            guard let buffer = request.buffer else { return false }
            slots[slot].isSlow = false
            submit(extents, slot: slot, isWrite: true, buffer: buffer, bufferStart: request.deviceOffset)
            if slots[slot].outstanding == 0 { finish(slot, 0) }
            return true
        case .fill(let fill):
            return startFill(slot, fill)
        default:
            return false
        }
    }

    /// Starts the fill of a request that it covers: as a plain write where no old content is left, else in a job.
    /// - Returns: false when it is for the slot's task.
    private func startFill(_ slot: Int, _ fill: Fill) -> Bool {
        let request = slots[slot].request
        let clusterMask = topLookup.geometry.clusterMask
        let isWhole = (fill.start | fill.end) & clusterMask == 0
        guard fill.end == request.end, isWhole || fitsJob(fill), let buffer = request.buffer else {
            slots[slot].fill = fill
            return false
        }
        slots[slot].isSlow = false
        guard isWhole else {
            plannedFills.append(PlannedFill(slot: slot, fill: fill))
            return true
        }
        slots[slot].fill = fill
        slots[slot].outstanding = 1
        statistics.dataWrites &+= 1
        let byteCount = UInt32(truncatingIfNeeded: request.byteCount)
        top.submit(
            .write(buffer, byteCount: byteCount, fileOffset: fill.fileOffset), token: dataToken(slot, byteCount: byteCount))
        return true
    }

    /// Plans as much of the range as is of one kind, from its start.
    @inline(__always)
    func planWrite(_ start: UInt64, to end: UInt64, into list: inout ExtentList) -> WritePlan {
        let lookup = topLookup
        let clusterMask = lookup.geometry.clusterMask
        var position = start
        while position < end {
            let entry = lookup.entry(at: position)
            // 0 and 1 need a cluster, 2 and 3 a closer look.
            guard entry > PageLookup.invalid else {
                // A fill is planned when nothing is in front of it.
                if list.count > 0 && image.hasBackingFile { return .direct(end: position) }
                let plan: WritePlan = image.planAllocation(
                    position, to: end, zerosBeneath: endOfZerosBeneath(position, to: end), into: &list)
                if case .direct = plan { return plan }
                return list.count > 0 ? .direct(end: position) : plan
            }
            let pieceEnd = min((position | clusterMask) &+ 1, end)
            guard
                list.append(
                    layer: 0, fileOffset: entry &+ (position & clusterMask), deviceOffset: position,
                    byteCount: pieceEnd &- position)
            else { return .direct(end: position) }
            position = pieceEnd
        }
        return .direct(end: end)
    }

    /// A write that has to wait: piece by piece, each of one kind.
    func writeSlowly(
        _ slot: Int, _ range: Range<UInt64>, from buffer: UnsafeMutableRawPointer
    ) async throws(RequestError) {
        var list = ExtentList(capacity: extentCapacity)
        defer { list.deallocate() }
        var position = range.lowerBound
        if let fill = slots[slot].fill {
            // Planned by the inline path.
            slots[slot].fill = nil
            try await perform(fill, slot: slot, data: buffer)
            position = fill.end
        }
        while position < range.upperBound {
            if let failure = image.failure { throw failure }
            list.removeAll()
            switch planWrite(position, to: range.upperBound, into: &list) {
            case .direct(let end):
                try await transfer(list, slot: slot, isWrite: true, buffer: buffer, bufferStart: range.lowerBound)
                position = end
            case .fill(let fill):
                try await perform(fill, slot: slot, data: buffer + Int(position - range.lowerBound))
                position = fill.end
            case .missing(let deviceOffset):
                try await loadPage(layer: 0, deviceOffset: deviceOffset)
            case .invalid(let deviceOffset):
                throw .corruptEntry(deviceOffset: deviceOffset)
            case .needsSpace(let clusters):
                try await extend(atLeast: clusters)
            case .busy(let cluster):
                await fillEnded(cluster: cluster)
            case .commitFirst:
                try await makeRoom()
            }
        }
    }

    /// Returns when the fill of `cluster` has ended, well or not.
    func fillEnded(cluster: UInt64) async {
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let waits = image.state.withLock { $0.fills.wait(for: cluster, continuation) }
            if !waits { continuation.resume(returning: 0) }
        }
    }
}
