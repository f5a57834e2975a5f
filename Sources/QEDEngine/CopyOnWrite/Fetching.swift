import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// Why a fetch does not go on. What it has fetched stays in the image.
public enum FetchError: Error {
    /// The file system of the image has no more room than is to be left for what the disk's users write.
    case noRoom
    case request(RequestError)

    init(_ error: RequestError) { self = error.errno == .noSpace ? .noRoom : .request(error) }
}

/// What a piece of a fetch has done.
public struct FetchedPiece: Sendable {
    /// From where it goes on.
    public var ranges: FetchRanges
    /// Read from the bottom of the chain, and now the image's.
    public var fetchedBytes: UInt64
    public var failure: FetchError?
}

/// A piece of a fetch: what the tasks that are at work on it share.
final class FetchPiece: @unchecked Sendable {
    // SAFETY: touched by the queue's thread alone.
    enum Purpose {
        /// Of what the image does not have.
        case fetch
        /// The same; what the disk's users read meanwhile is more urgent.
        case fetchInBackground
        /// Of what it has, with the bottom (`KeptComparison`).
        case compare
    }

    var ranges: FetchRanges
    let purpose: Purpose
    let goesOn: @Sendable () -> Bool
    var fetchedBytes: UInt64 = 0
    private var startBytes: UInt64
    private(set) var failure: FetchError?
    private(set) var firstDifference: UInt64?
    /// Of tasks, by their numbers, a bit each.
    private var working: UInt64 = 0
    private var waiter: CompletionContinuation?

    /// So much is fetched before somebody else may want the queue quiet, and so much of the disk looked at for that.
    private static let fetchedLimitBytes: UInt64 = 64 << 20
    private static let lookedAtBytes: UInt64 = 1 << 30

    init(_ ranges: FetchRanges, purpose: Purpose, goesOn: @escaping @Sendable () -> Bool) {
        self.ranges = ranges
        self.purpose = purpose
        self.goesOn = goesOn
        startBytes = ranges.passedBytes
    }

    /// Whether somebody may begin another part.
    var isOpen: Bool {
        failure == nil && fetchedBytes < Self.fetchedLimitBytes && ranges.passedBytes - startBytes < Self.lookedAtBytes
            && goesOn()
    }

    /// The first reason is the one that is told.
    func fail(_ error: FetchError) { failure = failure ?? error }

    func note(difference deviceOffset: UInt64) {
        firstDifference = min(firstDifference ?? deviceOffset, deviceOffset)
    }

    func isWorking(_ number: Int) -> Bool { working & (1 << number) != 0 }

    func begin(_ number: Int) {
        precondition(number < 64 && !isWorking(number), "two tasks of one number")
        working |= 1 << number
    }

    func end(_ number: Int) {
        precondition(isWorking(number), "a task ends that has not begun")
        working &= ~(1 << number)
        guard working == 0, let waiter else { return }
        self.waiter = nil
        waiter.resume(returning: 0)
    }

    /// Returns when all tasks have ended.
    func ended() async {
        guard working != 0 else { return }
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in waiter = continuation }
    }
}

/// Ranges of the disk are fetched from the bottom of the chain into the image, many parts at once: the origin may be far away.
///
/// Each part is kept as what a user reads is (`CopyOnRead`): with a plan that is made before the old content is read. Neighbours
/// that the image has nothing of are one plan, and one read. The buffers are the fetch's own, so that it keeps none of the
/// staging's from the disk's users.
extension EngineQueue {
    /// How many parts are under way at most, and how many while a user waits for what nobody fetches but he.
    static var largestFetchCount: Int { 32 }
    private static var countBesideReads: Int { 8 }
    /// Of all parts together.
    private static var fetchBufferBytes: UInt64 { 4 << 20 }
    private static var smallestUnitBytes: UInt64 { 128 << 10 }

    /// Fetches some of what the image does not have of the ranges, as own work (`beginOwnWork`): a bounded piece.
    /// - Parameters:
    ///   - ranges: `FetchRanges` of the last piece go on where that ended.
    ///   - isBackground: what the disk's users read meanwhile is more urgent.
    ///   - goesOn: asked, on this thread, before another part is begun.
    public func fetch(
        _ ranges: FetchRanges, isBackground: Bool = false, goesOn: @escaping @Sendable () -> Bool = { true }
    ) async -> FetchedPiece {
        precondition(hasOwnWork && image.keepsReads, "a fetch beside other own work, or into an image that keeps nothing")
        // Where clusters are too large to be kept nothing is.
        guard image.geometry.clusterSizeBytes <= ImageOptions.largestKeptClusterBytes, files.bottomIsRaw, files.layerCount > 1
        else { return FetchedPiece(ranges: FetchRanges([]), fetchedBytes: 0) }
        let piece = FetchPiece(ranges, purpose: isBackground ? .fetchInBackground : .fetch, goesOn: goesOn)
        await perform(piece)
        return FetchedPiece(ranges: piece.ranges, fetchedBytes: piece.fetchedBytes, failure: piece.failure)
    }

    /// Returns when nobody is at work on it any more.
    func perform(_ piece: FetchPiece) async {
        startTasks(on: piece, unitBytes: max(image.geometry.clusterSizeBytes, Self.smallestUnitBytes))
        await piece.ended()
    }

    /// How many tasks may be at work on it.
    private func taskLimit(of piece: FetchPiece, unitBytes: UInt64) -> Int {
        let isBesideReads = piece.purpose == .fetchInBackground && image.readsBeneath.load(ordering: .relaxed) > 0
        return min(isBesideReads ? Self.countBesideReads : Self.largestFetchCount, Int(Self.fetchBufferBytes / unitBytes))
    }

    private func startTasks(on piece: FetchPiece, unitBytes: UInt64) {
        for number in 0..<taskLimit(of: piece, unitBytes: unitBytes) where !piece.isWorking(number) {
            piece.begin(number)
            tasks.start {
                await self.work(number, on: piece, unitBytes: unitBytes)
                piece.end(number)
            }
        }
    }

    private func work(_ number: Int, on piece: FetchPiece, unitBytes: UInt64) async {
        let id = RequestID(tag: ownRequest.tag + 1 + number)
        precondition(slots[id].state == .idle, "two parts of a fetch have one slot")
        slots[id].state = .slow
        let buffer = UnsafeMutableRawPointer.allocate(
            byteCount: Int(unitBytes) * (piece.purpose == .compare ? 2 : 1), alignment: 4096)
        defer {
            slots[id].state = .idle
            buffer.deallocate()
        }
        let clusterBytes = image.geometry.clusterSizeBytes
        // What lies behind the end that the header says is made zeros when that changes.
        let limit =
            image.backingEnd <= image.headerSizeBytes ? image.backingEnd : image.headerSizeBytes & ~image.geometry.clusterMask
        while number < taskLimit(of: piece, unitBytes: unitBytes), !tasks.isStopping, piece.isOpen,
            let part = piece.ranges.next(clusterBytes: clusterBytes, unitBytes: unitBytes, limit: limit)
        {
            // Those that have made room for the disk's users, who have got now what they waited for.
            startTasks(on: piece, unitBytes: unitBytes)
            do throws(FetchError) {
                if piece.purpose == .compare {
                    do throws(RequestError) { try await slow.compareKept(part, id, through: buffer, for: piece) } catch {
                        throw FetchError(error)
                    }
                } else {
                    try await slow.fetch(part, id, through: buffer, for: piece)
                }
            } catch {
                piece.fail(error)
            }
        }
    }
}

extension SlowRequests {
    /// - Parameters:
    ///   - part: begins with a cluster, and ends with one, or with the last that is to be fetched of it.
    ///   - buffer: as large as the part.
    fileprivate func fetch(
        _ part: Range<UInt64>, _ id: RequestID, through buffer: UnsafeMutableRawPointer, for piece: FetchPiece
    ) async throws(FetchError) {
        var position = part.lowerBound
        while position < part.upperBound {
            do throws(RequestError) {
                if let failure = image.failure { throw failure }
                let missing = try await firstMissing(in: position..<part.upperBound, id, piece)
                guard let missing else { return }
                guard await hasRoomToKeep(besides: 32 * UInt64(part.count)) else { throw .storage(.noSpace) }
                position = try await fetchMissing(missing, id, through: buffer, for: piece)
            } catch {
                throw FetchError(error)
            }
        }
    }

    /// The first clusters that follow each other and are to be fetched.
    private func firstMissing(
        in range: Range<UInt64>, _ id: RequestID, _ piece: FetchPiece
    ) async throws(RequestError) -> Range<UInt64>? {
        var start: UInt64?
        var position = range.lowerBound
        while position < range.upperBound {
            let clusterEnd = min((position | image.geometry.clusterMask) &+ 1, range.upperBound)
            let next = try await nextMissing(from: position, clusterEnd: clusterEnd, id)
            if next == position {
                start = start ?? position
                position = clusterEnd
            } else if let start {
                return start..<position
            } else {
                position = next
            }
        }
        if let start { return start..<range.upperBound }
        // Nobody has to look at each part of a hole.
        if position > range.upperBound { piece.ranges.skip(range.lowerBound..<position) }
        return nil
    }

    /// - Returns: `start`, where the image has nothing of its cluster, and the first of what lies beneath it, but for zeros, is
    ///   raw; else the place of a later cluster, in front of which nothing is to be fetched.
    private func nextMissing(
        from start: UInt64, clusterEnd: UInt64, _ id: RequestID
    ) async throws(RequestError) -> UInt64 {
        guard try await isUnallocated(start, id) else { return clusterEnd }
        let lookEnd = min(max(clusterEnd, start + Self.lookBytes), image.backingEnd)
        let zerosEnd = try await reader.zerosBeneath(start, to: lookEnd, id.transfers)
        guard zerosEnd < clusterEnd else { return max(clusterEnd, zerosEnd & ~image.geometry.clusterMask) }
        return isOfRawBottom(zerosEnd, to: clusterEnd) ? start : clusterEnd
    }

    /// - Returns: the place to go on from. The first cluster may be looked at once more, where somebody else had it.
    private func fetchMissing(
        _ clusters: Range<UInt64>, _ id: RequestID, through buffer: UnsafeMutableRawPointer, for piece: FetchPiece
    ) async throws(RequestError) -> UInt64 {
        var list = lists.take()
        var beneath = lists.take()
        defer {
            lists.giveBack(list)
            lists.giveBack(beneath)
        }
        let start = clusters.lowerBound
        // All that there is of the last one, so that the copier needs no buffer. The image ends with a whole block.
        var end = min(copier.roundedUpToBlock(clusters.upperBound), image.sizeBytes)
        if isSabotaged(.fetchOverNewer) {
            end = min(end, start + UInt64(staging.bufferBytes))
            try await writeOverNewer(id, start..<end)
            return end
        }
        while true {
            if let failure = image.failure { throw failure }
            list.removeAll()
            switch map.planWrite(start, to: end, isKept: true, into: &list, beneath: &beneath) {
            // Somebody has given it a place meanwhile.
            case .direct(let end): return end
            case .blocked(let obstacle):
                try await wait(for: obstacle, id)
                if case .busy = obstacle { return start }
            case .copy(let plan):
                try await fill(plan, id, through: buffer)
                piece.fetchedBytes += plan.end - plan.start
                return plan.end
            }
        }
    }
}
