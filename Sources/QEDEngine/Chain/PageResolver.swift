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
    /// Memory to read tables into: of as many pages as were ever made at once by this queue.
    private var freeBuffers: [Buffer] = []

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

    private final class Buffer {
        // SAFETY: page-aligned, allocated here and freed in deinit.
        let memory: UnsafeMutableRawPointer
        var parts: [Part] = []

        init() {
            memory = .allocate(
                byteCount: PageResolver.pagesAtOnce * QEDGeometry.l2PageSizeBytes, alignment: QEDGeometry.l2PageSizeBytes)
            parts.reserveCapacity(PageResolver.pagesAtOnce)
        }

        deinit { memory.deallocate() }

        func address(_ position: Int) -> UnsafeMutableRawPointer { memory + position * QEDGeometry.l2PageSizeBytes }
        func entries(_ position: Int) -> UnsafePointer<UInt64> {
            UnsafePointer(address(position).assumingMemoryBound(to: UInt64.self))
        }
    }

    /// So many layers are read at once: what keeps a disk busy, and is not too much for each request of a queue.
    private static var pagesAtOnce: Int { 8 }

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
        case .waitForPlace(let slot): _ = await wait { pages.wait(for: slot, $0) }
        case .wait(let slot):
            let result = await wait { pages.wait(for: slot, $0) }
            guard result >= 0 else { throw .storage(Errno(rawValue: -result)) }
        case .make(let slot):
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
        let buffer = freeBuffers.popLast() ?? Buffer()
        defer { freeBuffers.append(buffer) }
        try await merge(image, layer: 0, page, slot, pages, buffer, group)
        var layer = 1
        if let lower = image.lower {
            try await merge(lower, layer: 1, page, slot, pages, buffer, group)
            layer = 2
        }
        while layer < files.layerCount, !pages.isComplete(slot) {
            layer = plan(from: layer, page, pages, buffer)
            try await read(buffer, group)
            for index in buffer.parts.indices { merge(index, page, slot, pages, buffer) }
        }
        // No layer has the rest.
        if !pages.isComplete(slot) { pages.merge(slot) { _ in .zeros } }
    }

    /// How the layer is called in the pages: from the bottom, so that a new top changes nothing.
    private func number(ofLayer layer: Int) -> Int { files.layerCount - 1 - layer }

    /// Of an image that may change.
    private func merge(
        _ image: Image, layer: Int, _ page: Int, _ slot: Int, _ pages: ResolvedPages, _ buffer: Buffer, _ group: TransferGroup
    ) async throws(RequestError) {
        let number = number(ofLayer: layer)
        guard let fileOffset = image.mergeFromMemory(page, into: pages, slot, layerNumber: number) else { return }
        buffer.parts.removeAll(keepingCapacity: true)
        buffer.parts.append(Part(layer: layer, kind: .table(fileOffset: fileOffset)))
        try await read(buffer, group)
        image.mergeFromFile(buffer.entries(0), page, into: pages, slot, layerNumber: number)
    }

    /// What the next layers have, as many of them as the buffer has places.
    /// - Returns: the layer to go on with.
    private func plan(from first: Int, _ page: Int, _ pages: ResolvedPages, _ buffer: Buffer) -> Int {
        buffer.parts.removeAll(keepingCapacity: true)
        let start = pages.lookup.deviceOffset(ofPage: page)
        let end = pages.lookup.deviceOffset(ofPage: page + 1)
        var layer = first
        while layer < files.layerCount, buffer.parts.count < PageResolver.pagesAtOnce {
            let kind: Part.Kind
            if let tables = image.bases[layer - 1] {
                switch tables.place(of: start) {
                case .nowhere: kind = .nothing
                case .invalid: kind = .invalid
                case .page(let fileOffset): kind = .table(fileOffset: fileOffset)
                }
                if case .nothing = kind, tables.sizeBytes >= end {} else { buffer.parts.append(Part(layer: layer, kind: kind)) }
            } else {
                buffer.parts.append(Part(layer: layer, kind: .raw))
            }
            layer += 1
        }
        precondition(layer > first, "a page that is made without getting on")
        return layer
    }

    /// Reads the tables of all parts at once.
    private func read(_ buffer: Buffer, _ group: TransferGroup) async throws(RequestError) {
        precondition(transfers.isIdle(group), "the request has transfers under way")
        for (index, part) in buffer.parts.enumerated() {
            guard case .table(let fileOffset) = part.kind else { continue }
            transfers.startTableRead(group, buffer.address(index), layer: part.layer, fileOffset: fileOffset)
        }
        await transfers.finished(group)
        guard transfers.takeFailure(group) else { return }
        // One by one: what falls short of its end is continued, and what fails says why.
        do {
            for (index, part) in buffer.parts.enumerated() {
                guard case .table(let fileOffset) = part.kind else { continue }
                try await files.read(
                    part.layer, into: buffer.address(index), byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
            }
        } catch {
            throw .storage(error.errno)
        }
    }

    private func merge(_ index: Int, _ page: Int, _ slot: Int, _ pages: ResolvedPages, _ buffer: Buffer) {
        let part = buffer.parts[index]
        let start = pages.lookup.deviceOffset(ofPage: page)
        let shift = pages.lookup.clusterShift
        let sizeBytes = files.layers[part.layer].sizeBytes
        let number = number(ofLayer: part.layer)
        let entries = buffer.entries(index)
        let tables = image.bases[part.layer - 1]
        pages.merge(slot) { index in
            let position = start + UInt64(index) << shift
            // Past the end of a layer there is nothing, whatever lies below it.
            if position >= sizeBytes { return .zeros }
            switch part.kind {
            case .nothing: return .unknown
            case .invalid: return .invalid
            case .raw: return ResolvedEntry(layerNumber: number, fileOffset: position)
            case .table: return tables?.entry(at: position, in: entries, layerNumber: number) ?? .unknown
            }
        }
    }
}
