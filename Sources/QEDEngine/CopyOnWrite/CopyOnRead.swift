import BlockStorage
import IOURing
import Platform
import QEDFormat

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
            if await isToBeKept(position, id) {
                try await read(unreadStart..<position, of: range, into: buffer, id)
                if await keep(position..<pieceEnd, into: buffer + Int(position - range.lowerBound), id) {
                    unreadStart = pieceEnd
                } else {
                    unreadStart = position
                }
            }
            position = pieceEnd
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
        guard image.failure == nil, start < end, end <= image.headerSizeBytes else { return false }
        var list = lists.take()
        defer { lists.giveBack(list) }
        do throws(RequestError) {
            guard try await isUnallocated(start, id) else { return false }
            let zerosEnd = try await reader.zerosBeneath(start, to: end, id.transfers)
            guard zerosEnd < end else { return false }
            _ = map.resolve(zerosEnd, to: end, beneath: true, judging: false, into: &list)
        } catch {
            // Whoever reads it will say so.
            return false
        }
        return list.count > 0 && Int(list[0].layer) == map.files.layerCount - 1 && map.files.bottomIsRaw
    }

    /// - Parameter range: of one cluster.
    /// - Returns: whether the range's bytes are in `target`; otherwise they are to be read, from wherever they are now.
    private func keep(_ range: Range<UInt64>, into target: UnsafeMutableRawPointer, _ id: RequestID) async -> Bool {
        let start = range.lowerBound & ~image.geometry.clusterMask
        let clusterEnd = (start | image.geometry.clusterMask) &+ 1
        // All that there is of it, so that the copier needs no second buffer: who holds one and waits for another could wait for
        // others who do the same.
        let end = min(clusterEnd, copier.roundedUpToBlock(image.backingEnd), image.sizeBytes)
        precondition(range.upperBound <= clusterEnd && start < end, "a range of several clusters")
        guard end - start <= UInt64(staging.bufferBytes) else { return false }
        // What is only kept must not be why a guest's write or flush fails; nor what the file is extended by because of it: with
        // what others are about to keep that may be twice, and by twice as much the second time.
        let chunkBytes = image.state.withLock { $0.cursor.chunkBytes }
        guard await files.top.hasRoomToSpare(besides: 4 * chunkBytes) else { return false }
        if isSabotaged(.keepReadsOverNewer) {
            try? await writeOverNewer(id, start..<end)
            return false
        }
        var list = lists.take()
        var beneath = lists.take()
        defer {
            lists.giveBack(list)
            lists.giveBack(beneath)
        }
        while image.failure == nil {
            list.removeAll()
            switch map.planWrite(start, to: end, into: &list, beneath: &beneath) {
            case .copy(let plan): return await fetch(plan, range, into: target, id)
            // Somebody has given it a place meanwhile.
            case .direct: return false
            case .blocked(let obstacle):
                do throws(RequestError) { try await wait(for: obstacle, id) } catch { return false }
                // Somebody has fetched it, or written to it.
                if case .busy = obstacle { return false }
            }
        }
        return false
    }

    /// Whatever happens, the plan ends here.
    private func fetch(
        _ plan: CopyPlan, _ range: Range<UInt64>, into target: UnsafeMutableRawPointer, _ id: RequestID
    ) async -> Bool {
        precondition(plan.start == plan.clustersStart && plan.count == 1, "parts of a cluster are kept, or several")
        let data = await staging.take()
        defer { staging.giveBack(data) }
        do throws(RequestError) {
            try await reader.read(plan.start..<plan.end, into: data, beneath: true, id.transfers)
        } catch {
            for waiter in image.abandon(plan) { waiter.resume(returning: 0) }
            return false
        }
        let isAllThere = range.lowerBound >= plan.start && range.upperBound <= plan.end
        if isAllThere {
            target.copyMemory(from: data + Int(range.lowerBound - plan.start), byteCount: range.count)
        }
        do throws(RequestError) { try await copier.perform(plan, id, data: data) } catch {
            // What was read is right, whether it could be kept or not.
        }
        return isAllThere
    }
}
