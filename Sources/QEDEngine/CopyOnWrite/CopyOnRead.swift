import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization

/// What is read from a raw file or a base elsewhere, which is at the bottom of the chain, is kept in the image, a cluster at a
/// time, so that it is read from there once.
///
/// A cluster is kept as one is filled for a write (`CopyUp`): with a plan of its own, made before the old content is read, which
/// keeps writes, zeroes and discards away until its entry is published. So a guest's write goes over what was kept, and never the
/// other way round. Who reads a cluster that somebody else fetches waits for that, and has it from the image.
///
/// Keeping is never what a read fails by: without room, or on an image that cannot be written any more, and where a cluster
/// cannot be read in full, it reads what it was asked for.
extension SlowRequests {
    func readAndKeep(
        _ id: RequestID, _ range: Range<UInt64>, into buffer: UnsafeMutableRawPointer
    ) async throws(RequestError) {
        precondition(image.keepsReads && range.upperBound <= image.sizeBytes, "a read that is not kept, or outside the device")
        let clusterMask = image.geometry.clusterMask
        var position = range.lowerBound
        // Up to `position` nothing is to be kept.
        var unreadStart = position
        while position < range.upperBound {
            let pieceEnd = min((position | clusterMask) &+ 1, range.upperBound)
            guard await isToBeKept(position, id) else {
                position = pieceEnd
                continue
            }
            try await read(unreadStart..<position, of: range, into: buffer, id)
            unreadStart = position
            let start = position & ~clusterMask
            if isSabotaged(.keepReadsOverNewer) {
                try? await writeOverNewer(id, start..<min((start | clusterMask) &+ 1, image.sizeBytes))
                position = pieceEnd
                continue
            }
            // Neighbours that are to be kept come together.
            var end = pieceEnd
            while end < range.upperBound, await isToBeKept(end, id) { end = min((end | clusterMask) &+ 1, range.upperBound) }
            let target = buffer + Int(position - range.lowerBound)
            let wholeEnd = end & ~clusterMask
            let stagedEnd = min(end, start + UInt64(staging.bufferBytes))
            // What is asked for whole goes to where it is asked for; unless the parts beside it fit a buffer with it.
            if position == start, wholeEnd > start, stagedEnd < end || wholeEnd == end {
                unreadStart = try await keepWhole(start..<wholeEnd, into: target, id)
            } else {
                unreadStart = await keep(position..<stagedEnd, into: target, id)
            }
            position = max(unreadStart, pieceEnd)
        }
        try await read(unreadStart..<range.upperBound, of: range, into: buffer, id)
    }

    private func read(
        _ part: Range<UInt64>, of range: Range<UInt64>, into buffer: UnsafeMutableRawPointer, _ id: RequestID
    ) async throws(RequestError) {
        guard !part.isEmpty else { return }
        try await reader.read(part, into: buffer + Int(part.lowerBound - range.lowerBound), beneath: false, id.transfers)
    }

    /// Whether the image has nothing of the cluster, and the first of what lies beneath it, but for zeros, is raw.
    private func isToBeKept(_ position: UInt64, _ id: RequestID) async -> Bool {
        let start = position & ~image.geometry.clusterMask
        let end = min((start | image.geometry.clusterMask) &+ 1, image.backingEnd)
        // What lies behind the end that the header says is made zeros when that changes.
        guard image.failure == nil, start < end, end <= image.headerSizeBytes,
            image.geometry.clusterSizeBytes <= UInt64(staging.bufferBytes)
        else { return false }
        do throws(RequestError) {
            guard try await isUnallocated(start, id) else { return false }
            let zerosEnd = try await reader.zerosBeneath(start, to: end, id.transfers)
            return zerosEnd < end && (image.keptLimitBytes != nil || isOfRawBottom(zerosEnd, to: end))
        } catch {
            // Whoever reads it will say so.
            return false
        }
    }

    /// Whether what is not zeros beneath the image, from there on, begins with the raw file at the bottom.
    func isOfRawBottom(_ position: UInt64, to end: UInt64) -> Bool {
        var list = lists.take()
        defer { lists.giveBack(list) }
        _ = map.resolve(position, to: end, beneath: true, judging: false, into: &list)
        return list.count > 0 && Int(list[0].layer) == map.files.layerCount - 1 && map.files.bottomIsRaw
    }

    /// What is only kept must not be why a guest's write or flush fails; nor what the file is extended by because of it: with
    /// what others are about to keep that may be twice, and by twice as much the second time.
    func hasRoomToKeep(besides byteCount: UInt64 = 0) async -> Bool {
        let (chunkBytes, isFull) = image.state.withLock { ($0.cursor.chunkBytes, image.isFull($0.cursor)) }
        if isFull { return false }
        return await files.top.hasRoomToSpare(besides: 4 * chunkBytes + byteCount)
    }

    /// Neighbours that are asked for whole come together, and to where they are asked for.
    /// - Returns: up to where they are in `target`. The rest is to be read, from wherever it is now.
    private func keepWhole(
        _ range: Range<UInt64>, into target: UnsafeMutableRawPointer, _ id: RequestID
    ) async throws(RequestError) -> UInt64 {
        let clusterMask = image.geometry.clusterMask
        precondition(range.lowerBound & clusterMask == 0 && range.upperBound & clusterMask == 0, "parts of clusters")
        guard let plan = await planToKeep(range, id) else { return range.lowerBound }
        precondition(plan.isWhole && plan.end <= range.upperBound, "a plan for what was not asked for")
        try await readToKeep(plan, into: target, id)
        do throws(RequestError) { try await copier.perform(plan, id, data: target) } catch {
            // What was read is right, whether it could be kept or not.
        }
        return plan.end
    }

    /// - Parameter range: of clusters that fit a buffer, perhaps not all of the first and the last.
    /// - Returns: up to where the range's bytes are in `target`; the rest is to be read, from wherever it is now.
    private func keep(_ range: Range<UInt64>, into target: UnsafeMutableRawPointer, _ id: RequestID) async -> UInt64 {
        let start = range.lowerBound & ~image.geometry.clusterMask
        let clustersEnd = ((range.upperBound - 1) | image.geometry.clusterMask) &+ 1
        // All that there is of it, so that the copier needs no second buffer: who holds one and waits for another could wait for
        // others who do the same.
        let end = min(clustersEnd, copier.roundedUpToBlock(image.backingEnd), image.sizeBytes)
        precondition(clustersEnd - start <= UInt64(staging.bufferBytes) && start < end, "a range that fits no buffer")
        guard let plan = await planToKeep(start..<end, id) else { return range.lowerBound }
        return await fetch(plan, range, into: target, id)
    }

    /// - Returns: for clusters from the range's start on, as many neighbours as the image has nothing of; nil where they are not
    ///   to be kept, or not by this request.
    private func planToKeep(_ range: Range<UInt64>, _ id: RequestID) async -> CopyPlan? {
        guard await hasRoomToKeep() else { return nil }
        var list = lists.take()
        var beneath = lists.take()
        defer {
            lists.giveBack(list)
            lists.giveBack(beneath)
        }
        while image.failure == nil {
            list.removeAll()
            switch map.planWrite(range.lowerBound, to: range.upperBound, isKept: true, into: &list, beneath: &beneath) {
            case .copy(let plan): return plan
            // Somebody has given it a place meanwhile.
            case .direct: return nil
            case .blocked(let obstacle):
                do throws(RequestError) { try await wait(for: obstacle, id) } catch { return nil }
                // Somebody has fetched it, or written to it.
                if case .busy = obstacle { return nil }
            }
        }
        return nil
    }

    /// While somebody waits for that what is fetched in advance has to stand back.
    private func readToKeep(
        _ plan: CopyPlan, into target: UnsafeMutableRawPointer, _ id: RequestID
    ) async throws(RequestError) {
        image.readsBeneath.add(1, ordering: .relaxed)
        defer { image.readsBeneath.subtract(1, ordering: .relaxed) }
        try await readBeneath(plan, into: target, id)
    }

    /// Whatever happens, the plan ends here.
    private func fetch(
        _ plan: CopyPlan, _ range: Range<UInt64>, into target: UnsafeMutableRawPointer, _ id: RequestID
    ) async -> UInt64 {
        precondition(plan.start == plan.clustersStart && plan.start <= range.lowerBound, "parts of a cluster are kept")
        let data = await staging.take()
        defer { staging.giveBack(data) }
        do throws(RequestError) { try await readToKeep(plan, into: data, id) } catch { return range.lowerBound }
        let fetchedEnd = max(min(range.upperBound, plan.end), range.lowerBound)
        target.copyMemory(
            from: data + Int(range.lowerBound - plan.start), byteCount: Int(fetchedEnd - range.lowerBound))
        do throws(RequestError) { try await copier.perform(plan, id, data: data) } catch {
            // What was read is right, whether it could be kept or not.
        }
        return fetchedEnd
    }
}
