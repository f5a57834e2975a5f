import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// What the requests' tasks do: everything that has to wait for something, piece by piece, each of one kind.
final class SlowRequests<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone.
    let files: QueueFiles<S>
    let map: ChainMap<S>
    let slots: RequestSlots
    let reader: ChainReader<S>
    let transfers: Transfers<S>
    let copier: Copier<S>
    private let committer: Committer<S>
    private let extender: SpaceExtender<S>
    let pages: PageLoader<S>
    let lists: ExtentListPool
    let staging: StagingPool
    var image: Image { files.image }

    init(
        map: ChainMap<S>, slots: RequestSlots, reader: ChainReader<S>, transfers: Transfers<S>, copier: Copier<S>,
        committer: Committer<S>,
        extender: SpaceExtender<S>, pages: PageLoader<S>, lists: ExtentListPool, staging: StagingPool
    ) {
        files = map.files
        self.map = map
        self.slots = slots
        self.reader = reader
        self.transfers = transfers
        self.copier = copier
        self.committer = committer
        self.extender = extender
        self.pages = pages
        self.lists = lists
        self.staging = staging
    }

    /// - Returns: 0, or the negative errno that the request is answered with.
    func perform(_ id: RequestID, isInFile: Bool) async -> Int32 {
        precondition(slots[id].state == .slow, "a request that its task does not have")
        slots[id].hasMissed = false
        let request = slots[id].request
        do throws(RequestError) {
            if !isInFile { try await perform(request, id) }
            if request.forcesUnitAccess { try await committer.commit() }
            return 0
        } catch {
            return -error.errno.rawValue
        }
    }

    private func perform(_ request: BlockRequest, _ id: RequestID) async throws(RequestError) {
        precondition(request.end <= image.sizeBytes, "a request past the end of the disk")
        let range = request.deviceOffset..<request.end
        switch request.operation {
        case .read:
            guard let buffer = request.buffer else { throw .outOfRange }
            if image.keepsReads {
                try await readAndKeep(id, range, into: buffer)
            } else {
                try await reader.read(range, into: buffer, beneath: false, id.transfers)
            }
        case .write:
            guard let buffer = request.buffer else { throw .outOfRange }
            try await write(id, range, from: buffer)
        case .writeZeroes:
            try await zero(id, range, isDiscard: false, keepsSpace: request.keepsSpace)
        case .discard:
            try await zero(id, range, isDiscard: true, keepsSpace: false)
        case .flush:
            try await committer.commit()
        }
    }

    func write(
        _ id: RequestID, _ range: Range<UInt64>, from buffer: UnsafeMutableRawPointer
    ) async throws(RequestError) {
        var list = lists.take()
        var beneath = lists.take()
        defer {
            lists.giveBack(list)
            lists.giveBack(beneath)
        }
        precondition(range.upperBound <= image.sizeBytes, "a write outside the device")
        var position = range.lowerBound
        if let plan = slots[id].copy {
            // Planned by the inline path.
            slots[id].copy = nil
            precondition(plan.start == position, "a plan for another request")
            try await copier.perform(plan, id, data: buffer)
            position = plan.end
        }
        while position < range.upperBound {
            if let failure = image.failure { throw failure }
            list.removeAll()
            switch map.planWrite(position, to: range.upperBound, into: &list, beneath: &beneath) {
            case .direct(let end):
                try await transfers.perform(
                    list, isWrite: true, buffer: buffer, bufferStart: range.lowerBound, id.transfers)
                position = end
            case .copy(let plan):
                try await copier.perform(plan, id, data: buffer + Int(position - range.lowerBound))
                position = plan.end
            case .blocked(let obstacle):
                try await wait(for: obstacle, id)
            }
        }
    }

    /// Returns when it makes sense to plan again.
    func wait(for obstacle: WritePlan.Obstacle, _ id: RequestID) async throws(RequestError) {
        switch obstacle {
        case .unknownBeneath(let deviceOffset): await map.learnHoles(at: deviceOffset)
        case .missing(let deviceOffset):
            slots.noteMiss(id.transfers, in: files.counters)
            try await pages.load(deviceOffset)
        case .invalid(let deviceOffset): throw .corruptEntry(deviceOffset: deviceOffset)
        case .needsSpace(let clusters): try await extender.extend(atLeast: clusters)
        case .busy(let cluster): await fillEnded(cluster: cluster)
        case .commitFirst: try await pages.makeRoom()
        }
    }

    /// Returns when the fill of `cluster` has ended, well or not.
    private func fillEnded(cluster: UInt64) async {
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            precondition(cluster << image.geometry.clusterShift < image.sizeBytes, "a task waits for no cluster")
            let waits = image.state.withLock { $0.fills.wait(for: cluster, continuation) }
            if !waits { continuation.resume(returning: 0) }
        }
    }
}
