import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// Performs planned copies one at a time, for the requests' tasks: with waits, and in pieces where a cluster is larger than a
/// buffer.
final class Copier<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone.
    private let files: QueueFiles<S>
    private let reader: ChainReader<S>
    private let slots: RequestSlots
    private let staging: StagingPool
    private var image: Image { files.image }

    init(files: QueueFiles<S>, reader: ChainReader<S>, slots: RequestSlots, staging: StagingPool) {
        self.files = files
        self.reader = reader
        self.slots = slots
        self.staging = staging
    }

    /// The old content in front of and behind the request's data is read from the backing chain, and all goes into the new
    /// clusters, in one write where it fits a staging buffer.
    ///
    /// Whatever happens, the plan ends here: published, or abandoned with its clusters.
    /// - Parameter data: the request's, from `plan.start` on.
    func perform(_ plan: CopyPlan, _ id: RequestID, data: UnsafeMutableRawPointer) async throws(RequestError) {
        precondition(plan.start < plan.end && plan.count > 0, "a copy for nothing")
        files.counters.pointee.fills &+= 1
        files.counters.pointee.filledClusters &+= plan.count
        var plan = plan
        do {
            try await fill(&plan, id, data: data)
        } catch {
            if isSabotaged(.publishFailedFill) {
                for waiter in image.publish(plan) { waiter.resume(returning: 0) }
                throw error
            }
            for waiter in image.abandon(plan) { waiter.resume(returning: 0) }
            throw error
        }
        files.counters.pointee.countAllocation(clusters: plan.count, bytes: plan.sizeBytes)
        for waiter in image.publish(plan) { waiter.resume(returning: 0) }
    }

    private func fill(_ plan: inout CopyPlan, _ id: RequestID, data: UnsafeMutableRawPointer) async throws(RequestError) {
        precondition(plan.end > plan.start && plan.count > 0, "a fill of nothing")
        let (head, tail) = plan.oldContent(upTo: roundedUpToBlock(image.backingEnd))
        let dataBytes = Int(plan.end - plan.start)
        let dataFileOffset = plan.fileOffset(of: plan.start)
        guard head.count + tail.count > 0 else {
            plan.isBegun = true
            try await files.write(data, byteCount: dataBytes, fileOffset: dataFileOffset)
            return
        }
        let buffer = await staging.take()
        defer { staging.giveBack(buffer) }
        guard head.count + tail.count <= staging.bufferBytes else {
            plan.isBegun = true
            try await copyInPieces(head, id, through: buffer, plan)
            try await files.write(data, byteCount: dataBytes, fileOffset: dataFileOffset)
            try await copyInPieces(tail, id, through: buffer, plan)
            return
        }
        if !head.isEmpty { try await reader.read(head, into: buffer, beneath: true, id.transfers) }
        if !tail.isEmpty { try await reader.read(tail, into: buffer + head.count, beneath: true, id.transfers) }
        plan.isBegun = true
        try await writeGathered(
            id, fileOffset: plan.fileOffset(of: head.lowerBound),
            IOVector(base: buffer, byteCount: head.count), IOVector(base: data, byteCount: dataBytes),
            IOVector(base: buffer + head.count, byteCount: tail.count))
    }

    /// Direct I/O writes whole blocks: what is copied ends with one. Bytes past the backing file's end read as zeros.
    func roundedUpToBlock(_ deviceOffset: UInt64) -> UInt64 {
        let block = UInt64(max(files.top.alignment.offsetBytes, Int(QEDLimits.sectorSizeBytes)))
        let (sum, overflow) = deviceOffset.addingReportingOverflow(block - 1)
        return overflow ? deviceOffset : sum / block * block
    }

    private func copyInPieces(
        _ range: Range<UInt64>, _ id: RequestID, through buffer: UnsafeMutableRawPointer, _ plan: CopyPlan
    ) async throws(RequestError) {
        precondition(
            range.lowerBound >= plan.clustersStart && range.upperBound <= plan.clustersEnd, "old content of other clusters")
        var position = range.lowerBound
        while position < range.upperBound {
            let end = min(position + UInt64(staging.bufferBytes), range.upperBound)
            try await reader.read(position..<end, into: buffer, beneath: true, id.transfers)
            try await files.write(buffer, byteCount: Int(end - position), fileOffset: plan.fileOffset(of: position))
            position = end
        }
    }

    private func writeGathered(
        _ id: RequestID, fileOffset: UInt64, _ first: IOVector, _ second: IOVector, _ third: IOVector
    ) async throws(RequestError) {
        precondition(slots[id].state == .slow, "vectors of a request that its task does not have")
        slots[id].vectors = (first, second, third)
        let total = first.byteCount + second.byteCount + third.byteCount
        let vectors = slots.vectors(of: id).assumingMemoryBound(to: IOVector.self)
        files.counters.pointee.dataWrites &+= 1
        let result = await files.top.perform(.writeGathered(vectors, vectorCount: 3, fileOffset: fileOffset))
        files.markUnsynced()
        if result == Int32(truncatingIfNeeded: total) { return }
        // Short, interrupted or refused: piece by piece, with what that says of the reason.
        var position = fileOffset
        for vector in [first, second, third] where vector.byteCount > 0 {
            if let base = vector.base {
                try await files.write(base, byteCount: vector.byteCount, fileOffset: position)
            }
            position += UInt64(vector.byteCount)
        }
    }
}
