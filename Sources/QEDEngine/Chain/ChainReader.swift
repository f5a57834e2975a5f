import BlockStorage
import QEDFormat
import SystemPackage

/// Reads of the device that may have to wait for a table: for tasks.
final class ChainReader<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone.
    private let map: ChainMap<S>
    private let slots: RequestSlots
    private let pages: PageLoader<S>
    private let resolver: PageResolver<S>
    private let transfers: Transfers<S>
    private let lists: ExtentListPool

    init(
        map: ChainMap<S>, slots: RequestSlots, pages: PageLoader<S>, resolver: PageResolver<S>, transfers: Transfers<S>,
        lists: ExtentListPool
    ) {
        self.map = map
        self.slots = slots
        self.pages = pages
        self.resolver = resolver
        self.transfers = transfers
        self.lists = lists
    }

    /// Loads the pages that are missing, then transfers; once more, carefully, what failed.
    /// - Parameter group: of the request for which it is read; nothing of it is under way.
    func read(
        _ range: Range<UInt64>, into buffer: UnsafeMutableRawPointer, beneath: Bool, _ group: TransferGroup
    ) async throws(RequestError) {
        precondition(transfers.isIdle(group), "the request has transfers under way")
        var list = lists.take()
        defer { lists.giveBack(list) }
        var position = range.lowerBound
        while position < range.upperBound {
            list.removeAll()
            var end = range.upperBound
            switch map.resolve(position, to: end, beneath: beneath, judging: true, into: &list) {
            case .complete: break
            case .full(let deviceOffset): end = deviceOffset
            case .invalid(let deviceOffset): throw .corruptEntry(deviceOffset: deviceOffset)
            case .missing(let page):
                // What is in front of it first: then a page at a time is all that is needed, and however small the cache is, each
                // page that comes gets somebody on.
                if list.count > 0 {
                    end = page.deviceOffset
                } else {
                    try await load(page, group)
                    continue
                }
            }
            precondition(end > position, "a read that does not get on")
            try await transfers.perform(list, isWrite: false, buffer: buffer, bufferStart: range.lowerBound, group)
            position = end
        }
    }

    /// Finds how far nothing but zeros lies beneath the image, and waits for what that has to know: tables, and the holes of a
    /// raw file.
    /// - Parameter end: not behind that of what lies beneath.
    /// - Returns: up to where, `end` at most; `start` where something else is.
    /// - Throws: where tables beneath cannot be read. An entry that cannot be right is something else.
    func zerosBeneath(_ start: UInt64, to end: UInt64, _ group: TransferGroup) async throws(RequestError) -> UInt64 {
        precondition(transfers.isIdle(group) && start < end, "the request has transfers under way, or asks for nothing")
        var list = lists.take()
        defer { lists.giveBack(list) }
        var position = start
        while position < end {
            if map.mustLearnHoles(at: position) {
                await map.learnHoles(at: position)
                continue
            }
            list.removeAll()
            let resolution = map.resolve(position, to: end, beneath: true, judging: false, into: &list)
            if list.count > 0 {
                guard list[0].layer == Extent.zeros else { return position }
                position += UInt64(list[0].byteCount)
                continue
            }
            guard case .missing(.chain(let deviceOffset)) = resolution else { return position }
            slots.noteMiss(group, in: map.files.counters)
            try await resolver.load(deviceOffset, group)
        }
        precondition(position == end, "zeros behind what was asked for")
        return end
    }

    private func load(_ page: ChainMap<S>.MissingPage, _ group: TransferGroup) async throws(RequestError) {
        slots.noteMiss(group, in: map.files.counters)
        switch page {
        case .image(let deviceOffset): try await pages.load(deviceOffset)
        case .chain(let deviceOffset):
            do throws(RequestError) { try await resolver.load(deviceOffset, group) } catch {
                // A table beneath the image cannot be read. What the image itself has does not need it.
                try await pages.load(deviceOffset)
                guard map.imageDecides(deviceOffset) else { throw error }
            }
        }
    }
}
