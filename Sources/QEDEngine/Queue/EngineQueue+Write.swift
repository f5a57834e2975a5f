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
        /// The same, but fills were not allowed.
        case needsFill
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
    @inline(__always)
    func startWrite(_ slot: Int) -> Bool {
        let request = slots[slot].request
        extents.removeAll()
        guard case .direct(let end) = planWrite(request.deviceOffset, to: request.end, mayFill: false, into: &extents),
            end == request.end, let buffer = request.buffer
        else { return false }
        slots[slot].isSlow = false
        submit(extents, slot: slot, isWrite: true, buffer: buffer, bufferStart: request.deviceOffset)
        if slots[slot].outstanding == 0 { finish(slot, 0) }
        return true
    }

    /// Plans as much of the range as is of one kind, from its start.
    @inline(__always)
    func planWrite(_ start: UInt64, to end: UInt64, mayFill: Bool, into list: inout ExtentList) -> WritePlan {
        let lookup = image.top.lookup
        let clusterMask = lookup.geometry.clusterMask
        var position = start
        while position < end {
            let entry = lookup.entry(at: position)
            // 0 and 1 need a cluster, 2 and 3 a closer look.
            guard entry > PageLookup.invalid else {
                // A fill is planned when nothing is in front of it.
                let plan: WritePlan = image.planAllocation(
                    position, to: end, mayFill: mayFill && list.count == 0, into: &list)
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
        while position < range.upperBound {
            if let failure = image.failure { throw failure }
            list.removeAll()
            switch planWrite(position, to: range.upperBound, mayFill: true, into: &list) {
            case .direct(let end):
                try await transfer(list, slot: slot, isWrite: true, buffer: buffer, bufferStart: range.lowerBound)
                markUnsynced()
                position = end
            case .fill(let fill):
                try await perform(fill, slot: slot, data: buffer + Int(position - range.lowerBound))
                position = fill.end
            case .needsFill:
                preconditionFailure("fills were allowed")
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
