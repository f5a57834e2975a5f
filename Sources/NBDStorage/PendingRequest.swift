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
