import BlockStorage
import Glibc
import IOURing
import QEDFormat

/// What a comparison of what is kept with the base has found.
public struct ComparedPiece: Sendable {
    /// From where it goes on.
    public var ranges: FetchRanges
    /// Of what is kept, in whole parts.
    public var comparedBytes: UInt64 = 0
    /// Device offset of the first byte that is another one than the base's.
    public var firstDifference: UInt64?
    public var failure: FetchError?
}

/// What is in the image, or between it and the raw bottom of the chain, is compared with that bottom: many parts at once, as they
/// are fetched. What the image does not have is left out, and so are zeros.
extension EngineQueue {
    /// Compares some of the ranges, as own work (`beginOwnWork`): a bounded piece.
    /// - Parameters: as of `fetch`.
    public func compareKept(
        _ ranges: FetchRanges, goesOn: @escaping @Sendable () -> Bool = { true }
    ) async -> ComparedPiece {
        precondition(hasOwnWork, "a comparison beside other own work")
        guard files.bottomIsRaw, files.layerCount > 1 else { return ComparedPiece(ranges: FetchRanges([])) }
        let piece = FetchPiece(ranges, purpose: .compare, goesOn: goesOn)
        await perform(piece)
        return ComparedPiece(
            ranges: piece.ranges, comparedBytes: piece.fetchedBytes, firstDifference: piece.firstDifference,
            failure: piece.failure)
    }
}

extension SlowRequests {
    /// - Parameter buffer: twice as large as the part.
    func compareKept(
        _ part: Range<UInt64>, _ id: RequestID, through buffer: UnsafeMutableRawPointer, for piece: FetchPiece
    ) async throws(RequestError) {
        // Zeros lie behind the end of the bottom.
        let part = part.lowerBound..<min(part.upperBound, image.backingEnd)
        guard !part.isEmpty else { return }
        let byteCount = part.count
        // With this its tables are in memory.
        guard try await isKept(part, id) else { return }
        try await reader.read(part, into: buffer, beneath: false, id.transfers)
        let other = buffer + byteCount
        memset(other, 0, byteCount)
        let bottom = map.files.layerCount - 1
        let end = min(part.upperBound, image.layers[bottom].sizeBytes)
        if part.lowerBound < end {
            var list = lists.take()
            defer { lists.giveBack(list) }
            list.removeAll()
            _ = list.append(
                layer: Int32(bottom), fileOffset: part.lowerBound, deviceOffset: part.lowerBound,
                byteCount: end - part.lowerBound)
            try await transfers.perform(
                list, isWrite: false, buffer: other, bufferStart: part.lowerBound, id.transfers)
        }
        piece.fetchedBytes += UInt64(byteCount)
        guard memcmp(buffer, other, byteCount) != 0 else { return }
        let (kept, base) = (
            UnsafeRawBufferPointer(start: buffer, count: byteCount), UnsafeRawBufferPointer(start: other, count: byteCount)
        )
        for index in 0..<byteCount where kept[index] != base[index] {
            return piece.note(difference: part.lowerBound + UInt64(index))
        }
    }

    /// Whether any of it lies in a file above the bottom.
    private func isKept(_ part: Range<UInt64>, _ id: RequestID) async throws(RequestError) -> Bool {
        var position = part.lowerBound
        while position < part.upperBound {
            let clusterEnd = min((position | image.geometry.clusterMask) &+ 1, part.upperBound)
            if try await !isUnallocated(position, id) { return true }
            let zerosEnd = try await reader.zerosBeneath(position, to: clusterEnd, id.transfers)
            if zerosEnd < clusterEnd, !isOfRawBottom(zerosEnd, to: clusterEnd) { return true }
            position = clusterEnd
        }
        return false
    }
}
