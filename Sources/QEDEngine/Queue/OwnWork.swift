import BlockStorage
import QEDFormat
import SystemPackage

/// What a queue does that no guest has asked for: beside the guest's requests, in tasks, with slots behind those of the tags.
extension EngineQueue {
    /// The slot of a request that nobody has sent: it comes behind those of the tags. Behind it come those of a fetch.
    var ownRequest: RequestID { RequestID(tag: depth) }
    static var ownSlotCount: Int { 1 + largestFetchCount }

    /// Runs a request that no guest has sent, beside those of the guest, and gives its result: 0 or a negative errno. One at a
    /// time. The queue is not quiet meanwhile.
    public func perform(own request: BlockRequest) async -> Int32 {
        precondition(slots[ownRequest].state == .idle && request.registered.isNone, "two requests that nobody has sent")
        if let failure = request.operation == .read ? nil : image.failure { return -failure.errno.rawValue }
        slots[ownRequest].request = request
        slots[ownRequest].state = .slow
        files.counters.pointee.slowRequests &+= 1
        let result = await slow.perform(ownRequest, isInFile: false)
        slots[ownRequest].state = .idle
        return result
    }

    /// Changes the image's header, durably (`SpaceExtender.changeHeader`).
    public func changeHeader(_ change: HeaderChange) async throws(HeaderChangeError) { try await extender.changeHeader(change) }

    /// Makes the disk larger in its image, durably, after `Image.replaceChain` has made it so for its queues: nobody asks for
    /// anything behind the old end yet. What the image, or a larger file beneath it, has there reads as zeros from then on; only
    /// then the header says so.
    /// - Parameter oldSizeBytes: of the disk.
    public func grow(from oldSizeBytes: UInt64) async throws(HeaderChangeError) {
        let sizeBytes = image.sizeBytes
        var position = oldSizeBytes
        while position < sizeBytes, !isSabotaged(.growWithoutZeros) {
            let end = min((position | (Self.growthBytes - 1)) &+ 1, sizeBytes)
            let zeros = BlockRequest(.writeZeroes, deviceOffset: position, byteCount: end - position)
            let result = await perform(own: zeros)
            guard result >= 0 else { throw .request(.storage(Errno(rawValue: -result))) }
            position = end
        }
        do throws(RequestError) { try await committer.commit() } catch { throw .request(error) }
        try await changeHeader(.imageSize(sizeBytes))
    }

    /// Zeros are made for so much at once.
    private static var growthBytes: UInt64 { 1 << 30 }

    /// Copies what lies beneath the image into it, from a place of the disk on: of the clusters that the image has nothing of.
    /// One after the other, beside the guest's requests, and a bounded number of them at a time (`CopyUp`).
    /// - Parameter deviceOffset: a multiple of the cluster size.
    /// - Returns: the place to go on from; nil: there is none. In front of it the image hides whatever lies beneath it, or zeros
    ///   lie there; it stays so.
    public func copyUp(from deviceOffset: UInt64) async throws(RequestError) -> UInt64? {
        precondition(slots[ownRequest].state == .idle && !image.isReadOnly, "two requests that nobody has sent")
        slots[ownRequest].state = .slow
        defer { slots[ownRequest].state = .idle }
        return try await slow.copyUp(ownRequest, from: deviceOffset)
    }

    /// The image names no backing file any more, durably. It hides all of it (`copyUp`), or zeros lie there.
    public func forgetBackingFile() async throws(HeaderChangeError) {
        // Without what lies beneath it a cluster whose entry a power cut takes away would read as zeros.
        if !isSabotaged(.flattenHeaderFirst) {
            do throws(RequestError) { try await committer.commit() } catch { throw .request(error) }
        }
        try await changeHeader(.noBackingFile)
    }

    /// Whether the file's L1 table has entries that would become the disk's with that size.
    public func hasTablesBehindEnd(upTo sizeBytes: UInt64) async throws(RequestError) -> Bool {
        try await extender.hasTablesBehindEnd(upTo: sizeBytes)
    }

    /// Runs something of the kind in a task of its own, which whoever wants the queue quiet waits for, and the queue's end.
    /// - Returns: false where there is one already: whoever has begun it may have given up waiting for it.
    public func beginOwnWork(_ body: @escaping (EngineQueue<S>) async -> Void) -> Bool {
        guard !hasOwnWork else { return false }
        hasOwnWork = true
        tasks.start {
            await body(self)
            self.hasOwnWork = false
        }
        return true
    }
}
