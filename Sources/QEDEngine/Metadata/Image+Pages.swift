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

    func beginPageLoad(layer layerIndex: Int, deviceOffset: UInt64) -> PageStep {
        precondition(layerIndex == 0 || lower == nil, "a page of the image beneath comes into the wrong cache")
        guard let layer = tables[layerIndex] else { preconditionFailure("a raw file has no tables") }
        let page = layer.geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard let fileOffset = layer.fileOffset(ofPage: page) else { return .ready }
            if let slot = state.cache.slot(ofPage: page, in: layer) {
                return state.cache[slot].phase == .loading ? .wait(slot: slot) : .ready
            }
            if state.cache.word(ofPage: page, in: layer) == .allUnallocated { return .ready }
            guard let slot = state.cache.takeSlot(tables: tables) else { return .commitFirst }
            state.cache.beginLoading(slot, page: page, in: layer)
            return .read(slot: slot, fileOffset: fileOffset)
        }
    }

    /// Waits for a page that somebody else reads.
    /// - Returns: false when it is no longer being read: look again at once.
    func waitForPage(_ slot: Int, layer: Int, deviceOffset: UInt64, _ continuation: CompletionContinuation) -> Bool {
        precondition(layer >= 0 && layer < layers.count, "no such layer")
        guard let tables = tables[layer] else { return false }
        let page = tables.geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard state.cache[slot].phase == .loading, state.cache[slot].page == page,
                state.cache[slot].layer == layer
            else { return false }
            state.cache[slot].waiters.append(continuation)
            return true
        }
    }

    /// A page has been read, or could not be. Every entry is judged before anybody sees it; a page with an entry that
    /// cannot be right is marked, so that lookups leave it to `judgedEntry`.
    func pageLoaded(_ slot: Int, layer layerIndex: Int, succeeded: Bool) -> [CompletionContinuation] {
        guard let layer = tables[layerIndex] else { preconditionFailure("a raw file has no tables") }
        return state.withLock { state in
            var isCareful = false
            if succeeded {
                let values = state.cache.values(ofSlot: slot)
                let bounds = entryBounds(of: layer, in: state)
                for index in 0..<QEDGeometry.entriesPerL2Page {
                    if case .invalid = bounds.l2Entry(UInt64(littleEndian: values[index])) {
                        isCareful = !isSabotaged(.trustTableEntries)
                    }
                }
            }
            let waiters = state.cache.endLoading(slot, in: layer, succeeded: succeeded, isCareful: isCareful)
            return waiters + state.takeSlotWaiters()
        }
    }

    /// An entry of a page that holds questionable ones: 0, 1, a file offset, `miss` or `invalid`.
    func judgedEntry(at deviceOffset: UInt64, layer layerIndex: Int) -> UInt64 {
        if layerIndex > 0, let lower { return lower.judgedEntry(at: deviceOffset, layer: layerIndex - 1) }
        guard let layer = tables[layerIndex] else { preconditionFailure("a raw file has no tables") }
        let page = layer.geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        return state.withLock { state in
            guard let slot = state.cache.slot(ofPage: page, in: layer), state.cache[slot].phase == .resident else {
                return PageLookup.miss
            }
            let index = layer.geometry.indexInL2Page(ofDeviceOffset: deviceOffset)
            let value = UInt64(littleEndian: state.cache.values(ofSlot: slot)[index])
            if !state.cache[slot].isCareful { return value }
            if case .invalid = entryBounds(of: layer, in: state).l2Entry(value) { return PageLookup.invalid }
            return value
        }
    }

    /// Where entries may point: into the file as it was opened, or, in an image that is written, up to where clusters have
    /// been handed out.
    func entryBounds(of layer: LayerTables, in state: borrowing ImageState) -> TableEntryBounds {
        guard layer.index == 0, !isReadOnly else { return layer.bounds }
        return TableEntryBounds(header: layer.header, fileSizeBytes: state.cursor.nextFileOffset)
    }
}
