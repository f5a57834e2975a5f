import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// What lies beneath the image is copied into it, cluster by cluster, for an image that is to stand alone.
///
/// A cluster that the image has, or has made zeros of, hides what lies beneath it, and one that nothing but zeros lies beneath
/// reads the same without it. Any other is filled as for a write: with a plan of its own, which keeps other writes, zeroes and
/// discards from the cluster until its entry is published (`ClusterFills`), and made before the old content is read. So what a
/// guest writes meanwhile goes over it, and never the other way round. What is hidden stays so: no entry becomes 0 again.
extension SlowRequests {
    /// How much is copied before somebody else may want the queue quiet, and how much of the disk is looked at for that.
    private static var pieceBytes: UInt64 { 4 << 20 }
    private static var lookedAtBytes: UInt64 { 1 << 30 }
    /// Zeros are looked for beneath so much of the disk at once.
    static var lookBytes: UInt64 { 16 << 20 }

    /// - Parameter id: a request that has nothing under way.
    /// - Returns: up to where it has come, in whole clusters; nil: to the end.
    func copyUp(_ id: RequestID, from start: UInt64) async throws(RequestError) -> UInt64? {
        let clusterMask = image.geometry.clusterMask
        precondition(start & clusterMask == 0, "a copy that begins within a cluster")
        var list = lists.take()
        var beneath = lists.take()
        defer {
            lists.giveBack(list)
            lists.giveBack(beneath)
        }
        // What lies behind the end that the header says is made zeros when that changes.
        let copyEnd = min(image.backingEnd, image.headerSizeBytes)
        var position = start
        var copiedBytes: UInt64 = 0
        while position < copyEnd, position - start < Self.lookedAtBytes, copiedBytes < Self.pieceBytes {
            if let failure = image.failure { throw failure }
            let clusterEnd = (position | clusterMask) &+ 1
            guard try await isUnallocated(position, id) else {
                position = clusterEnd
                continue
            }
            let lookEnd = min(max(clusterEnd, position + Self.lookBytes), image.backingEnd)
            let zerosEnd = try await zerosBeneath(position, to: lookEnd, id)
            if zerosEnd >= min(clusterEnd, lookEnd) {
                // Whatever the image has of these clusters, nothing is to be copied there.
                position = zerosEnd >= copyEnd ? copyEnd : zerosEnd & ~clusterMask
                continue
            }
            // As much as fits a buffer; the copier brings the rest, as it does around a guest's data.
            // The image ends with a whole block.
            let blocksEnd = min(copier.roundedUpToBlock(copyEnd), image.sizeBytes)
            let end = min(position + UInt64(staging.bufferBytes), clusterEnd, blocksEnd)
            if isSabotaged(.copyUpOverNewer) {
                try await writeOverNewer(id, position..<end)
                position = clusterEnd
                continue
            }
            list.removeAll()
            switch map.planWrite(position, to: end, into: &list, beneath: &beneath) {
            // Another queue has given it a place since it was looked up: one of zeros, where it was made zeros first.
            case .direct: continue
            case .copy(let plan):
                precondition(plan.count == 1, "a copy of several clusters")
                let buffer = await staging.take()
                defer { staging.giveBack(buffer) }
                try await fill(plan, id, through: buffer)
                copiedBytes += plan.sizeBytes
            case .blocked(let obstacle): try await wait(for: obstacle, id)
            }
        }
        guard position < copyEnd else { return nil }
        precondition(position > start && position & clusterMask == 0, "a copy that does not get on")
        return position
    }

    /// Whether the image has nothing of the cluster, neither data nor zeros.
    func isUnallocated(_ position: UInt64, _ id: RequestID) async throws(RequestError) -> Bool {
        while true {
            var entry = map.files.topLookup.entry(at: position)
            if entry == PageLookup.miss { entry = image.judgedEntry(at: position) }
            switch entry {
            case PageLookup.miss: try await wait(for: .missing(deviceOffset: position), id)
            case PageLookup.invalid: throw .corruptEntry(deviceOffset: position)
            default: return entry == L2Entry.unallocatedValue
            }
        }
    }

    private func zerosBeneath(_ position: UInt64, to end: UInt64, _ id: RequestID) async throws(RequestError) -> UInt64 {
        if isSabotaged(.copyUpSkipsUnknown), map.files.chainLookup?.entry(at: position) == .unknown { return end }
        return try await reader.zerosBeneath(position, to: end, id.transfers)
    }

    /// Fills clusters with what lies beneath them. Whatever happens, the plan ends here.
    /// - Parameters:
    ///   - plan: begins with its first cluster.
    ///   - buffer: as large as what it copies.
    func fill(_ plan: CopyPlan, _ id: RequestID, through buffer: UnsafeMutableRawPointer) async throws(RequestError) {
        try await readBeneath(plan, into: buffer, id)
        try await copier.perform(plan, id, data: buffer)
    }

    /// Reads what lies beneath the clusters of a plan, which ends where that fails.
    func readBeneath(
        _ plan: CopyPlan, into buffer: UnsafeMutableRawPointer, _ id: RequestID
    ) async throws(RequestError) {
        precondition(plan.start == plan.clustersStart, "a copy of parts of clusters")
        do throws(RequestError) {
            try await reader.read(plan.start..<plan.end, into: buffer, beneath: true, id.transfers)
        } catch {
            for waiter in image.abandon(plan) { waiter.resume(returning: 0) }
            throw error
        }
    }

    /// The fault: reads first, and then writes as a guest would.
    func writeOverNewer(_ id: RequestID, _ range: Range<UInt64>) async throws(RequestError) {
        let buffer = await staging.take()
        defer { staging.giveBack(buffer) }
        try await reader.read(range, into: buffer, beneath: true, id.transfers)
        try await write(id, range, from: buffer)
    }
}
