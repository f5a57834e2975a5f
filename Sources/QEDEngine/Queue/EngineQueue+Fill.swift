import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// Copy-on-write: a cluster of the backing file, with the request's data in it, becomes a cluster of the image.
extension EngineQueue {
    /// Up to where nothing but zeros lies beneath the image, from `position`'s cluster on; `position` when there is something,
    /// or it cannot be told without waiting. Clusters over zeros need no copy and no order: they are fresh.
    func endOfZerosBeneath(_ position: UInt64, to end: UInt64) -> UInt64 {
        guard position < image.backingEnd else { return position }
        let mask = topLookup.geometry.clusterMask
        let start = position & ~mask
        learnBeneath(start)
        beneath.removeAll()
        let resolution = resolve(start, to: (end &- 1 | mask) &+ 1, fromLayer: 1, judging: false, into: &beneath)
        guard resolution == .complete || beneath.count > 0, beneath.count > 0, beneath[0].layer == Extent.zeros
        else { return position }
        return start + UInt64(beneath[0].byteCount)
    }

    /// Asks the raw file at the bottom of the chain for its holes, if it is not known yet what lies at `deviceOffset`. Where
    /// the answer could be wrong everything counts as data: a hole is not copied.
    private func learnBeneath(_ deviceOffset: UInt64) {
        let bottom = layerCount - 1
        guard layers[bottom].lookup == nil, deviceOffset < layers[bottom].sizeBytes,
            !layers[bottom].data.knows(deviceOffset)
        else { return }
        let storage = layers[bottom].storage
        layers[bottom].data.learn(
            storage.tellsHolesTruly ? storage.nextData(from: deviceOffset) : nil, from: deviceOffset,
            fileSizeBytes: layers[bottom].sizeBytes)
    }

    /// Performs a planned fill: the old content in front of and behind the request's data is read from the backing
    /// chain, and all goes into the new clusters, in one write where it fits a staging buffer.
    ///
    /// Whatever happens, the fill ends here: published, or abandoned with its clusters.
    func perform(_ fill: Fill, slot: Int, data: UnsafeMutableRawPointer) async throws(RequestError) {
        statistics.fills &+= 1
        statistics.filledClusters &+= fill.count
        var fill = fill
        do {
            try await fillClusters(&fill, slot: slot, data: data)
        } catch {
            if isSabotaged(.publishFailedFill) {
                for waiter in image.publish(fill) { waiter.resume(returning: 0) }
                throw error
            }
            for waiter in image.abandon(fill) { waiter.resume(returning: 0) }
            throw error
        }
        for waiter in image.publish(fill) { waiter.resume(returning: 0) }
    }

    private func fillClusters(
        _ fill: inout Fill, slot: Int, data: UnsafeMutableRawPointer
    ) async throws(RequestError) {
        let clustersStart = fill.firstCluster << image.geometry.clusterShift
        let clustersEnd = (fill.firstCluster + fill.count) << image.geometry.clusterShift
        // What the new clusters hold is zeros until it is written, so where nothing lay beneath nothing is copied.
        let head = fill.headIsZeros || isSabotaged(.fillWithoutHead) ? fill.start..<fill.start : clustersStart..<fill.start
        let tailEnd =
            fill.tailIsZeros || isSabotaged(.fillWithoutTail)
            ? fill.end : max(fill.end, min(clustersEnd, roundedUpToBlock(image.backingEnd)))
        let tail = fill.end..<tailEnd
        let dataBytes = Int(fill.end - fill.start)
        let dataFileOffset = fill.fileOffset + (fill.start - clustersStart)

        guard head.count + tail.count > 0 else {
            fill.isBegun = true
            try await storageWrite(data, byteCount: dataBytes, fileOffset: dataFileOffset)
            return
        }
        let buffer = await staging.take()
        defer { staging.giveBack(buffer) }
        guard head.count + tail.count <= staging.bufferBytes else {
            fill.isBegun = true
            try await copyInPieces(head, slot: slot, through: buffer, fill: fill, clustersStart: clustersStart)
            try await storageWrite(data, byteCount: dataBytes, fileOffset: dataFileOffset)
            try await copyInPieces(tail, slot: slot, through: buffer, fill: fill, clustersStart: clustersStart)
            return
        }
        if !head.isEmpty { try await readSlowly(slot, head, into: buffer, fromLayer: 1) }
        if !tail.isEmpty { try await readSlowly(slot, tail, into: buffer + head.count, fromLayer: 1) }
        fill.isBegun = true
        try await writeGathered(
            slot: slot, fileOffset: fill.fileOffset + (head.lowerBound - clustersStart),
            IOVector(base: buffer, byteCount: head.count), IOVector(base: data, byteCount: dataBytes),
            IOVector(base: buffer + head.count, byteCount: tail.count))
    }

    /// Direct I/O writes whole blocks: what is copied ends with one. Bytes past the backing file's end read as zeros.
    private func roundedUpToBlock(_ deviceOffset: UInt64) -> UInt64 {
        let block = UInt64(max(top.alignment.offsetBytes, Int(QEDLimits.sectorSizeBytes)))
        let (sum, overflow) = deviceOffset.addingReportingOverflow(block - 1)
        return overflow ? deviceOffset : sum / block * block
    }

    private func copyInPieces(
        _ range: Range<UInt64>, slot: Int, through buffer: UnsafeMutableRawPointer, fill: Fill, clustersStart: UInt64
    ) async throws(RequestError) {
        var position = range.lowerBound
        while position < range.upperBound {
            let end = min(position + UInt64(staging.bufferBytes), range.upperBound)
            try await readSlowly(slot, position..<end, into: buffer, fromLayer: 1)
            try await storageWrite(
                buffer, byteCount: Int(end - position), fileOffset: fill.fileOffset + (position - clustersStart))
            position = end
        }
    }

    private func writeGathered(
        slot: Int, fileOffset: UInt64, _ first: IOVector, _ second: IOVector, _ third: IOVector
    ) async throws(RequestError) {
        slots[slot].vectors = (first, second, third)
        let total = first.byteCount + second.byteCount + third.byteCount
        // SAFETY: the slot's memory does not move; a tuple of three equal structs is laid out as an array of them.
        let vectors = UnsafeRawPointer(slots + slot).advanced(
            by: MemoryLayout<RequestSlot>.offset(of: \.vectors) ?? 0
        ).assumingMemoryBound(to: IOVector.self)
        statistics.dataWrites &+= 1
        let result = await top.perform(.writeGathered(vectors, vectorCount: 3, fileOffset: fileOffset))
        markUnsynced()
        if result == Int32(truncatingIfNeeded: total) { return }
        // Short, interrupted or refused: piece by piece, with what that says of the reason.
        var position = fileOffset
        for vector in [first, second, third] where vector.byteCount > 0 {
            if let base = vector.base {
                try await storageWrite(base, byteCount: vector.byteCount, fileOffset: position)
            }
            position += UInt64(vector.byteCount)
        }
    }

    /// Writes it all, or throws when part of it may have been written.
    func storageWrite(_ buffer: UnsafeRawPointer, byteCount: Int, fileOffset: UInt64) async throws(RequestError) {
        defer { markUnsynced() }
        do {
            try await top.writeFully(from: buffer, byteCount: byteCount, fileOffset: fileOffset)
        } catch {
            throw .storage(error.errno)
        }
    }
}
