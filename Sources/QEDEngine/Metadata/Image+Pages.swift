import IOURing
import Platform
import QEDFormat
import Synchronization

/// Pages coming into memory, and entries that have to be judged one at a time. Under the image's lock.
extension Image {
    /// What a task that needs a page has to do.
    enum PageStep {
        /// It is in memory (or its table does not exist): look again.
        case ready
        /// Somebody is reading it: wait.
        case wait(slot: Int)
        /// Read it from the file into the slot, then call `pageLoaded`.
        case read(slot: Int, fileOffset: UInt64)
        /// No slot is free: a commit must make some.
        case commitFirst
    }

    func beginPageLoad(deviceOffset: UInt64) -> PageStep {
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard let fileOffset = top.fileOffset(ofPage: page) else { return .ready }
            if let slot = state.cache.slot(ofPage: page, in: top) {
                return state.cache[slot].phase == .loading ? .wait(slot: slot) : .ready
            }
            if state.cache.word(ofPage: page, in: top) == .allUnallocated { return .ready }
            guard let slot = state.cache.takeSlot(in: top) else { return .commitFirst }
            state.cache.beginLoading(slot, page: page, in: top)
            return .read(slot: slot, fileOffset: fileOffset)
        }
    }

    /// Waits for a page that somebody else reads.
    /// - Returns: false when it is no longer being read: look again at once.
    func waitForPage(_ slot: Int, deviceOffset: UInt64, _ continuation: CompletionContinuation) -> Bool {
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard state.cache[slot].phase == .loading, state.cache[slot].page == page else { return false }
            state.cache[slot].waiters.append(continuation)
            return true
        }
    }

    /// A page has been read, or could not be. Every entry is judged before anybody sees it; a page with an entry that
    /// cannot be right is marked, so that lookups leave it to `judgedEntry`.
    func pageLoaded(_ slot: Int, succeeded: Bool) -> [CompletionContinuation] {
        state.withLock { state in
            var isCareful = false
            if succeeded {
                let values = state.cache.values(ofSlot: slot)
                let bounds = entryBounds(in: state)
                for index in 0..<QEDGeometry.entriesPerL2Page {
                    if case .invalid = bounds.l2Entry(UInt64(littleEndian: values[index])) {
                        isCareful = !isSabotaged(.trustTableEntries)
                    }
                }
            }
            let waiters = state.cache.endLoading(slot, in: top, succeeded: succeeded, isCareful: isCareful)
            return waiters + state.takeSlotWaiters()
        }
    }

    /// An entry of a page that holds questionable ones: 0, 1, a file offset, `miss` or `invalid`.
    func judgedEntry(at deviceOffset: UInt64) -> UInt64 {
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard let slot = state.cache.slot(ofPage: page, in: top), state.cache[slot].phase == .resident else {
                return PageLookup.miss
            }
            let index = geometry.indexInL2Page(ofDeviceOffset: deviceOffset)
            let value = UInt64(littleEndian: state.cache.values(ofSlot: slot)[index])
            if !state.cache[slot].isCareful { return value }
            if case .invalid = entryBounds(in: state).l2Entry(value) { return PageLookup.invalid }
            return value
        }
    }

    /// Where entries may point: into the file as it was opened, or, in an image that is written, up to where clusters have
    /// been handed out.
    func entryBounds(in state: borrowing ImageState) -> TableEntryBounds {
        guard !isReadOnly else { return top.bounds }
        return TableEntryBounds(header: top.header, fileSizeBytes: state.cursor.nextFileOffset)
    }

    // MARK: - The image's part in a page of the chain

    /// Merges what the image has into a page of the chain, as far as that is in memory.
    /// - Returns: where its L2 page has to be read from, for `mergeFromFile`; nil: nowhere. What changes meanwhile is `set` in
    ///   the page of the chain, and a change in an image that is not the top any more is none.
    func mergeFromMemory(_ page: Int, into pages: ResolvedPages, _ slot: Int, layerNumber: Int) -> UInt64? {
        let start = pages.lookup.deviceOffset(ofPage: page)
        return state.withLock { state -> UInt64? in
            let table = start < sizeBytes ? top.tableWord(geometry.l1Index(ofDeviceOffset: start)) : .unallocated
            let l2Page = geometry.l2PageNumber(ofDeviceOffset: start)
            switch table {
            case .unallocated: pages.merge(slot, sizeBytes: sizeBytes) { _ in .unknown }
            case .invalid: pages.merge(slot, sizeBytes: sizeBytes) { _ in .invalid(layerNumber: layerNumber) }
            default:
                let word = state.cache.word(ofPage: l2Page, in: top)
                if let cached = word.slot {
                    merge(state.cache.values(ofSlot: cached), entryBounds(in: state), into: pages, slot, layerNumber)
                } else if word == .allUnallocated {
                    pages.merge(slot, sizeBytes: sizeBytes) { _ in .unknown }
                } else {
                    return top.fileOffset(ofPage: l2Page)
                }
            }
            return nil
        }
    }

    /// The L2 page was read.
    func mergeFromFile(_ values: UnsafePointer<UInt64>, into pages: ResolvedPages, _ slot: Int, layerNumber: Int) {
        state.withLock { state in merge(values, entryBounds(in: state), into: pages, slot, layerNumber) }
    }

    private func merge(
        _ values: UnsafePointer<UInt64>, _ bounds: TableEntryBounds, into pages: ResolvedPages, _ slot: Int, _ layerNumber: Int
    ) {
        pages.merge(slot, sizeBytes: sizeBytes) { position in
            ResolvedEntry(
                l2Value: UInt64(littleEndian: values[geometry.indexInL2Page(ofDeviceOffset: position)]), bounds,
                offsetInCluster: position & geometry.clusterMask, layerNumber: layerNumber)
        }
    }
}
