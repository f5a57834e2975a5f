import BlockStorage
import IOURing
import Platform
import QEDFormat
import SystemPackage

/// Makes pages of the chain (`ResolvedPages`) from the tables of its layers, from the top down until every entry is known.
///
/// Of a file beneath the image the part of its L2 table is read that it takes, and not kept. Of an image that changes (the top;
/// what was it before, until that is sealed) what is in memory counts, and its file only where nothing is.
final class PageResolver<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone; what is shared is behind its lock.
    private let files: QueueFiles<S>
    private let transfers: Transfers<S>
    private var image: Image { files.image }
    /// Memory to read tables into.
    private let buffers = StagingPool(
        bufferBytes: PageResolver.pagesAtOnce * QEDGeometry.l2PageSizeBytes, limit: PageResolver.makersAtOnce)

    /// What a layer has for a page.
    private struct Part {
        enum Kind {
            /// Nothing; only what is behind its end is nothing from there on.
            case nothing
            /// The entry of the table cannot be right.
            case invalid
            /// The page of an L2 table, read into the place of the buffer that is the part's.
            case table(fileOffset: UInt64)
            /// A raw file: everything up to its end.
            case raw
        }
        var layer: Int
        var kind: Kind
    }

    /// So many layers are read at once: what keeps a disk busy, and is not too much for each request of a queue.
    private static var pagesAtOnce: Int { 16 }

    /// And so many pages are made at once by a queue: what a disk has to do then is enough.
    private static var makersAtOnce: Int { 4 }

    init(files: QueueFiles<S>, transfers: Transfers<S>) {
        self.files = files
        self.transfers = transfers
    }

    /// Returns when the chain's page for `deviceOffset` was in memory. When this task has made it, it is there unless another
    /// thread has needed its place: so each page that is made gets somebody on, however many ask for however few places.
    /// - Parameter group: of the request for which it is made; nothing of it is under way.
    func load(_ deviceOffset: UInt64, _ group: TransferGroup) async throws(RequestError) {
        guard let pages = image.resolved else { preconditionFailure("a chain without pages") }
        let page = pages.lookup.page(of: deviceOffset)
        switch pages.begin(page) {
        case .ready: return
        case .full: _ = await wait { pages.waitForRoom($0) }
        case .waitForPlace(let slot, let other): _ = await wait { pages.wait(for: slot, page: other, $0) }
        case .wait(let slot):
            let result = await wait { pages.wait(for: slot, page: page, $0) }
            guard result >= 0 else { throw .storage(Errno(rawValue: -result)) }
        case .make(let slot):
            files.counters.pointee.chainPageLoads &+= 1
            var failure: RequestError?
            do throws(RequestError) { try await make(page, slot, pages, group) } catch { failure = error }
            let result = failure.map { -$0.errno.rawValue } ?? 0
            for waiter in pages.end(slot, succeeded: failure == nil) { waiter.resume(returning: result) }
            if let failure { throw failure }
        }
    }

    /// - Parameter begin: false where there is nothing to wait for any more.
    private func wait(_ begin: (CompletionContinuation) -> Bool) async -> Int32 {
        await withUnsafeContinuation { (continuation: CompletionContinuation) in
            if !begin(continuation) { continuation.resume(returning: 0) }
        }
    }

    private func make(_ page: Int, _ slot: Int, _ pages: ResolvedPages, _ group: TransferGroup) async throws(RequestError) {
        let memory = await buffers.take()
        defer { buffers.giveBack(memory) }
        try await merge(image, layer: 0, page, slot, pages, memory, group)
        var layer = 1
        if let lower = image.lower {
            try await merge(lower, layer: 1, page, slot, pages, memory, group)
            layer = 2
        }
        var parts: [Part] = []
        parts.reserveCapacity(PageResolver.pagesAtOnce)
        while layer < files.layerCount, !pages.isComplete(slot) {
            layer = plan(from: layer, page, pages, into: &parts)
            try await read(parts, memory, group)
            for (place, part) in parts.enumerated() {
                merge(part, slot, pages, entries: PageResolver.entries(memory, place))
            }
        }
        // No layer has the rest.
        if !pages.isComplete(slot) { pages.merge(slot, sizeBytes: 0) { _ in .zeros } }
    }

    private static func address(_ memory: UnsafeMutableRawPointer, _ place: Int) -> UnsafeMutableRawPointer {
        memory + place * QEDGeometry.l2PageSizeBytes
    }

    private static func entries(_ memory: UnsafeMutableRawPointer, _ place: Int) -> UnsafePointer<UInt64> {
        UnsafePointer(address(memory, place).assumingMemoryBound(to: UInt64.self))
    }

    /// How the layer is called in the pages: from the bottom, so that a new top changes nothing.
    private func number(ofLayer layer: Int) -> Int { files.layerCount - 1 - layer }

    /// Of an image that may change.
    private func merge(
        _ image: Image, layer: Int, _ page: Int, _ slot: Int, _ pages: ResolvedPages, _ memory: UnsafeMutableRawPointer,
        _ group: TransferGroup
    ) async throws(RequestError) {
        let number = number(ofLayer: layer)
        guard let fileOffset = image.mergeFromMemory(page, into: pages, slot, layerNumber: number) else { return }
        try await read([Part(layer: layer, kind: .table(fileOffset: fileOffset))], memory, group)
        image.mergeFromFile(PageResolver.entries(memory, 0), into: pages, slot, layerNumber: number)
    }

    /// What the next layers have, as many of them as there are places in the memory.
    /// - Returns: the layer to go on with.
    private func plan(from first: Int, _ page: Int, _ pages: ResolvedPages, into parts: inout [Part]) -> Int {
        parts.removeAll(keepingCapacity: true)
        let start = pages.lookup.deviceOffset(ofPage: page)
        let end = pages.lookup.deviceOffset(ofPage: page + 1)
        var layer = first
        while layer < files.layerCount, parts.count < PageResolver.pagesAtOnce {
            if let tables = image.bases[layer - 1] {
                switch tables.place(of: start) {
                case .nowhere: if tables.sizeBytes < end { parts.append(Part(layer: layer, kind: .nothing)) }
                case .invalid: parts.append(Part(layer: layer, kind: .invalid))
                case .page(let fileOffset): parts.append(Part(layer: layer, kind: .table(fileOffset: fileOffset)))
                }
            } else {
                parts.append(Part(layer: layer, kind: .raw))
            }
            layer += 1
        }
        precondition(layer > first, "a page that is made without getting on")
        return layer
    }

    /// Reads the tables of all parts at once, each to its place.
    private func read(_ parts: [Part], _ memory: UnsafeMutableRawPointer, _ group: TransferGroup) async throws(RequestError) {
        precondition(transfers.isIdle(group), "the request has transfers under way")
        for (place, part) in parts.enumerated() {
            guard case .table(let fileOffset) = part.kind else { continue }
            transfers.startTableRead(
                group, PageResolver.address(memory, place), layer: part.layer, fileOffset: fileOffset)
        }
        await transfers.finished(group)
        guard transfers.takeFailure(group) else { return }
        // One by one: what falls short of its end is continued, and what fails says why.
        do {
            for (place, part) in parts.enumerated() {
                guard case .table(let fileOffset) = part.kind else { continue }
                try await files.read(
                    part.layer, into: PageResolver.address(memory, place), byteCount: QEDGeometry.l2PageSizeBytes,
                    fileOffset: fileOffset)
            }
        } catch {
            throw .storage(error.errno)
        }
    }

    /// Of a file that does not change.
    private func merge(_ part: Part, _ slot: Int, _ pages: ResolvedPages, entries: UnsafePointer<UInt64>) {
        let number = number(ofLayer: part.layer)
        let tables = image.bases[part.layer - 1]
        pages.merge(slot, sizeBytes: files.layers[part.layer].sizeBytes) { position in
            switch part.kind {
            case .nothing: .unknown
            case .invalid: .invalid(layerNumber: number)
            case .raw: ResolvedEntry(layerNumber: number, fileOffset: position)
            case .table: tables?.entry(at: position, in: entries, layerNumber: number) ?? .unknown
            }
        }
    }
}
