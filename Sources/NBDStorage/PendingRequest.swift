/// A request that is not answered yet, and what has come of it so far. A value of the export's thread.
struct PendingRequest {
    var request: ExportRequest
    /// When it fails; nil: never.
    var deadline: UInt64?
    /// Of a read: so much of it is there. A server may give less at once than is asked for.
    var doneBytes = 0
    /// The part of a read that is under way: how much of it, and where it comes to, with how much in front, where whole
    /// blocks of the server are more than that. The address is to be freed.
    var part: (byteCount: Int, bounce: (address: UnsafeMutableRawPointer, leading: Int)?) = (0, nil)
    var extents: [ExportExtent] = []
    /// As far as `extents` goes.
    var foundEnd: UInt64 = 0

    init(request: ExportRequest, deadline: UInt64?) {
        self.request = request
        self.deadline = deadline
    }

    /// What is to be asked for next, in whole blocks of the server.
    mutating func next(in shape: ExportShape) -> ExportRequest.Work {
        let block = shape.smallestBlockBytes
        func range(_ offset: UInt64, _ byteCount: UInt64) -> Range<UInt64> {
            let end = (offset + byteCount + block - 1) / block * block
            return offset / block * block..<min(end, shape.sizeBytes)
        }
        switch request.work {
        case .extents(let offset, let byteCount):
            let range = range(offset, byteCount)
            foundEnd = range.lowerBound
            return .extents(offset: range.lowerBound, byteCount: range.upperBound - range.lowerBound)
        case .read(let buffer, let byteCount, let offset):
            part.bounce?.address.deallocate()
            // With a block more at both ends it is not too much.
            let largest = Int(max(shape.largestBlockBytes / block, 3) - 2) * Int(block)
            let partBytes = min(byteCount - doneBytes, largest)
            let start = offset + UInt64(doneBytes)
            let range = range(start, UInt64(partBytes))
            let count = Int(range.upperBound - range.lowerBound)
            guard count != partBytes else {
                part = (partBytes, nil)
                return .read(into: buffer + doneBytes, byteCount: partBytes, offset: start)
            }
            let address = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: Int(block))
            part = (partBytes, (address, Int(start - range.lowerBound)))
            return .read(into: address, byteCount: count, offset: range.lowerBound)
        }
    }

    /// The part that was asked for is there.
    /// - Returns: whether another part is to be asked for.
    mutating func takePart() -> Bool {
        guard case .read(let buffer, let byteCount, _) = request.work else { return false }
        if let bounce = part.bounce {
            (buffer + doneBytes).copyMemory(from: bounce.address + bounce.leading, byteCount: part.byteCount)
            bounce.address.deallocate()
        }
        doneBytes += part.byteCount
        part = (0, nil)
        precondition(doneBytes <= byteCount, "more than was asked for")
        return doneBytes < byteCount
    }

    /// What a server says beyond them is asked for again.
    private static let mostExtentsOfAnswer = 1024

    /// Extents from `foundEnd` on, as the server has them: a length, and bits of which the second says that it reads as zeros.
    mutating func take(_ entries: UnsafeBufferPointer<UInt32>) {
        guard case .extents(let wanted, _) = request.work else { return }
        for index in stride(from: 0, to: entries.count - 1, by: 2) where extents.count < PendingRequest.mostExtentsOfAnswer {
            let start = max(foundEnd, wanted)
            foundEnd += UInt64(entries[index])
            guard foundEnd > start else { continue }
            extents.append(ExportExtent(byteCount: foundEnd - start, readsAsZeros: entries[index + 1] & 2 != 0))
        }
    }
}
