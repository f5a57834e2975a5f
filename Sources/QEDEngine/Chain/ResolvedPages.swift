import Glibc
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// Where the bytes of the disk lie in a chain of several QED files, in pages of 512 entries: what makes a read cost the same
/// whatever the depth of the chain, in time and in memory.
///
/// A page is made when it is first needed, from the tables of all layers (`PageResolver`), and then kept true by whoever changes
/// the top's entries (`set`): nobody else changes anything that it tells. So a new top, which has nothing yet, leaves all pages
/// as they are. It is a cache: pages that were not needed for long make room.
///
/// Lookups are without locks (`ResolvedLookup`); everything else is behind the lock, which is taken inside an image's.
final class ResolvedPages: @unchecked Sendable {
    // SAFETY: `words`, `memory` and `referenced` are allocated here, freed in deinit, and accessed through atomics; a slot's
    // entries are changed under the lock.
    let lookup: ResolvedLookup
    private let pageCount: Int
    let budgetBytes: Int
    let wordLimit: Int
    private let wordCount: Int
    private let slotCount: Int
    private let state: Lock<State>

    private struct Slot {
        enum Phase { case free, loading, resident }
        var phase = Phase.free
        var page = 0
        var generation: UInt32 = 0
        /// Tasks that wait for the page: resumed with 0 or a negative errno.
        var waiters: [CompletionContinuation] = []
    }

    private struct State {
        var slots: [Slot]
        var clockHand = 0
        /// Slots that have a page, or get one.
        var usedCount = 0
        var evictions: UInt64 = 0
        /// Tasks that wait for a slot, when a page is being made in every one.
        var roomWaiters: [CompletionContinuation] = []
    }

    /// - Parameters:
    ///   - clusterShift: log2 of the smallest cluster of the chain.
    ///   - diskSizeBytes: what is to be found.
    ///   - budgetBytes: of pages; at least 16 of them.
    ///   - wordLimit: of places in the directory. Of more pages than that only one with each place can be in memory.
    /// - Throws: the errno of `mmap`.
    init(clusterShift: UInt64, diskSizeBytes: UInt64, budgetBytes: Int, wordLimit: Int) throws(Errno) {
        precondition(diskSizeBytes > 0 && budgetBytes >= 0, "pages for nothing, or a budget below it")
        self.budgetBytes = budgetBytes
        self.wordLimit = wordLimit
        let bytesPerPage = UInt64(QEDGeometry.entriesPerL2Page) << clusterShift
        pageCount = Int((diskSizeBytes - 1) / bytesPerPage) + 1
        slotCount = min(max(budgetBytes / QEDGeometry.l2PageSizeBytes, 16), ResolvedWord.slotLimit)
        var wordShift = 0
        while 1 << wordShift < pageCount && 2 << wordShift <= wordLimit { wordShift += 1 }
        wordCount = 1 << wordShift
        // Memory of zeros that is not even there until it is used: words of pages that nobody has made.
        let words = try PageCache.mapZeros(wordCount * MemoryLayout<UInt64>.size)
        let memory: UnsafeMutableRawPointer
        do { memory = try PageCache.mapZeros(slotCount * QEDGeometry.l2PageSizeBytes) } catch {
            munmap(words, wordCount * MemoryLayout<UInt64>.size)
            throw error
        }
        let referenced = UnsafeMutablePointer<Atomic<UInt8>>.allocate(capacity: slotCount)
        for slot in 0..<slotCount { (referenced + slot).initialize(to: Atomic(0)) }
        lookup = ResolvedLookup(
            words: words.assumingMemoryBound(to: Atomic<UInt64>.self), memory: memory, referenced: referenced,
            clusterShift: clusterShift, wordShift: wordShift)
        state = Lock(State(slots: Array(repeating: Slot(), count: slotCount)))
    }

    /// Those of a chain; nil where it has one QED file, over which a raw one needs no tables, and of a disk without any size.
    convenience init?(chain: [Layer], budgetBytes: Int, wordLimit: Int) throws(Errno) {
        var shifts: [UInt64] = []
        for case .qed(let header, _) in chain { shifts.append(header.geometry.clusterShift) }
        guard shifts.count > 1, let smallest = shifts.min(), chain[0].sizeBytes > 0 else { return nil }
        precondition(chain.count <= ResolvedEntry.layerLimit, "a chain of more layers than have a number")
        try self.init(
            clusterShift: smallest, diskSizeBytes: chain[0].sizeBytes, budgetBytes: budgetBytes,
            wordLimit: wordLimit)
    }

    deinit {
        munmap(lookup.words, wordCount * MemoryLayout<UInt64>.size)
        munmap(lookup.memory, slotCount * QEDGeometry.l2PageSizeBytes)
        lookup.referenced.deallocate()
    }

    // MARK: - Making a page

    enum Step {
        /// It is there: look again.
        case ready
        /// Somebody makes it: wait.
        case wait(slot: Int)
        /// Somebody makes another one with its place: wait, and look again whatever came of that.
        case waitForPlace(slot: Int, of: Int)
        /// Fill it in, then call `end`.
        case make(slot: Int)
        /// Pages are being made in all slots: wait for one.
        case full
    }

    func begin(_ page: Int) -> Step {
        precondition(page >= 0 && page < pageCount, "no such page of the disk")
        return state.withLock { state in
            let word = word(page)
            if word != .absent {
                let isThis = word.tag == lookup.tag(ofPage: page)
                if word.isBeingMade {
                    return isThis ? .wait(slot: word.slot) : .waitForPlace(slot: word.slot, of: state.slots[word.slot].page)
                }
                if isThis { return .ready }
                evict(word.slot, in: &state)
            }
            guard let slot = takeSlot(in: &state) else { return .full }
            state.slots[slot].phase = .loading
            state.usedCount += 1
            state.slots[slot].page = page
            state.slots[slot].generation &+= 1
            // Atomic stores: a lookup that still holds the slot's former page may be reading.
            let entries = lookup.entries(ofSlot: slot)
            for index in 0..<QEDGeometry.entriesPerL2Page {
                entries[index].store(ResolvedEntry.unknown.rawValue, ordering: .relaxed)
            }
            setWord(of: slot, isBeingMade: true, in: state)
            return .make(slot: slot)
        }
    }

    /// The clock's next victim, or a free slot.
    private func takeSlot(in state: inout State) -> Int? {
        // Two turns: the first may only clear the reference bits.
        for _ in 0..<(2 * slotCount) {
            let candidate = state.clockHand
            state.clockHand = candidate + 1 == slotCount ? 0 : candidate + 1
            switch state.slots[candidate].phase {
            case .free: return candidate
            case .loading: continue
            case .resident:
                if lookup.referenced[candidate].exchange(0, ordering: .relaxed) != 0 { continue }
                evict(candidate, in: &state)
                return candidate
            }
        }
        return nil
    }

    private func evict(_ slot: Int, in state: inout State) {
        precondition(
            state.slots[slot].phase == .resident && state.slots[slot].waiters.isEmpty, "somebody waits for a page that is there")
        store(.absent, ofPage: state.slots[slot].page)
        // As in `PageCache.takeSlot`: what is next stored in the slot must not be seen before the word's change.
        atomicMemoryFence(ordering: .releasing)
        state.slots[slot].phase = .free
        state.usedCount -= 1
        state.evictions &+= 1
    }

    /// What its pages take.
    var use: PageUse {
        state.withLock { PageUse(pages: $0.usedCount, pageLimit: slotCount, evictions: $0.evictions) }
    }

    /// Fills in what one layer has, where no layer above it has anything: under the lock.
    ///
    /// Entries that were `set` since the page was begun stay: they are newer than what was read.
    /// - Parameters:
    ///   - sizeBytes: of the layer. Past its end there is nothing, whatever lies below it.
    ///   - entry: of the layer, for a device offset before its end; `unknown` where it has nothing.
    func merge(_ slot: Int, sizeBytes: UInt64, _ entry: (UInt64) -> ResolvedEntry) {
        state.withLock { state in
            precondition(state.slots[slot].phase == .loading, "a page changes that is not being made")
            let entries = lookup.entries(ofSlot: slot)
            let start = lookup.deviceOffset(ofPage: state.slots[slot].page)
            for index in 0..<QEDGeometry.entriesPerL2Page {
                let isSet = entries[index].load(ordering: .relaxed) != ResolvedEntry.unknown.rawValue
                if isSet && !isSabotaged(.mergeOverChange) { continue }
                let position = start + UInt64(index) << lookup.clusterShift
                let value = (position < sizeBytes ? entry(position) : .zeros).rawValue
                if value != ResolvedEntry.unknown.rawValue { entries[index].store(value, ordering: .relaxed) }
            }
        }
    }

    /// Whether no layer further down can add anything.
    func isComplete(_ slot: Int) -> Bool {
        let entries = lookup.entries(ofSlot: slot)
        return (0..<QEDGeometry.entriesPerL2Page).allSatisfy {
            entries[$0].load(ordering: .relaxed) != ResolvedEntry.unknown.rawValue
        }
    }

    /// The page is made, or could not be.
    /// - Returns: the tasks to resume.
    func end(_ slot: Int, succeeded: Bool) -> [CompletionContinuation] {
        precondition(!succeeded || isComplete(slot), "a page that does not tell everything")
        return state.withLock { state in
            precondition(state.slots[slot].phase == .loading, "a page ends that was not begun")
            state.slots[slot].phase = succeeded ? .resident : .free
            lookup.referenced[slot].store(1, ordering: .relaxed)
            if succeeded {
                setWord(of: slot, isBeingMade: false, in: state)
            } else {
                store(.absent, ofPage: state.slots[slot].page)
                state.usedCount -= 1
            }
            let waiters = state.slots[slot].waiters + state.roomWaiters
            state.slots[slot].waiters.removeAll(keepingCapacity: true)
            state.roomWaiters.removeAll(keepingCapacity: true)
            return waiters
        }
    }

    // MARK: - Waiting

    /// Waits for a page that somebody makes.
    /// - Returns: false when nobody does any more: look again at once.
    func wait(for slot: Int, page: Int, _ continuation: CompletionContinuation) -> Bool {
        state.withLock { state in
            guard isMade(slot, page: page, in: state) else { return false }
            state.slots[slot].waiters.append(continuation)
            return true
        }
    }

    /// Whether the slot has this page, which is being made, and no other: it may have ended meanwhile.
    func isMade(_ slot: Int, page: Int) -> Bool { state.withLock { isMade(slot, page: page, in: $0) } }

    private func isMade(_ slot: Int, page: Int, in state: borrowing State) -> Bool {
        state.slots[slot].phase == .loading && state.slots[slot].page == page
    }

    /// Waits until the making of some page has ended.
    /// - Returns: false when there is room.
    func waitForRoom(_ continuation: CompletionContinuation) -> Bool {
        state.withLock { state in
            guard state.slots.allSatisfy({ $0.phase == .loading }) else { return false }
            state.roomWaiters.append(continuation)
            return true
        }
    }

    // MARK: - Changes of the top

    /// The top has got a cluster, or hides what lies beneath it. Under the image's lock, after its own entry was changed: a page
    /// that is begun later finds that, and one that is there, or being made, is told here.
    func set(_ entry: ResolvedEntry, deviceOffset: UInt64, byteCount: UInt64) {
        precondition(deviceOffset & lookup.clusterMask == 0 && entry != .unknown, "an entry for parts of clusters")
        let count = max(Int(byteCount >> lookup.clusterShift), 1)
        var done = 0
        while done < count {
            let position = deviceOffset + UInt64(done) << lookup.clusterShift
            let first = lookup.index(of: position)
            let piece = min(count - done, QEDGeometry.entriesPerL2Page - first)
            let page = lookup.page(of: position)
            // A cluster of the top may go beyond the disk's end.
            if page < pageCount, word(page) != .absent {
                set(entry, page, first: first, count: piece, fileOffset: entry.fileOffset + UInt64(done) << lookup.clusterShift)
            }
            done += piece
        }
    }

    private func set(_ entry: ResolvedEntry, _ page: Int, first: Int, count: Int, fileOffset: UInt64) {
        state.withLock { _ in
            let word = word(page)
            guard word != .absent, word.tag == lookup.tag(ofPage: page) else { return }
            let entries = lookup.entries(ofSlot: word.slot)
            for index in 0..<count {
                let value =
                    entry.isOfLayer
                    ? ResolvedEntry(
                        layerNumber: entry.layerNumber, fileOffset: fileOffset + UInt64(index) << lookup.clusterShift) : entry
                entries[first + index].store(value.rawValue, ordering: .releasing)
            }
        }
    }

    private func word(_ page: Int) -> ResolvedWord {
        ResolvedWord(rawValue: lookup.words[lookup.place(ofPage: page)].load(ordering: .acquiring))
    }

    private func setWord(of slot: Int, isBeingMade: Bool, in state: borrowing State) {
        let page = state.slots[slot].page
        store(
            ResolvedWord(
                slot: slot, generation: state.slots[slot].generation, tag: lookup.tag(ofPage: page), isBeingMade: isBeingMade),
            ofPage: page)
    }

    private func store(_ word: ResolvedWord, ofPage page: Int) {
        lookup.words[lookup.place(ofPage: page)].store(word.rawValue, ordering: .releasing)
    }
}
