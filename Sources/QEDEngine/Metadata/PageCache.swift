import Glibc
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// The L2 pages that are in memory, within a budget of bytes; the unit is 4 KiB of a table.
///
/// Lookups do not come here (see `PageLookup`); everything else does, under the image's lock. Clean pages are evicted by
/// a clock; dirty, pinned and loading ones stay.
struct PageCache: ~Copyable {
    /// A page is written to the file as it was when all its entries were safe to write: an entry whose data may still be
    /// lost in a power cut goes out with its old value.
    struct UnsealedEntry {
        var index: Int
        var oldValue: UInt64
        /// The entry may be written once a sync with this number or a later one has completed.
        var sealedBySync: UInt64
    }

    enum Phase { case free, loading, resident }

    struct Slot {
        var page = 0
        var phase = Phase.free
        var generation: UInt32 = 0
        var isCareful = false
        /// Its entries differ from the file's.
        var isDirty = false
        /// It is in `dirtySlots`.
        var isListed = false
        /// A snapshot of it is on its way to the file.
        var isBeingWritten = false
        /// Fills that will publish entries in it.
        var pinCount = 0
        var unsealed: [UnsealedEntry] = []
        /// Entries set since the last snapshot.
        var changeCount = 0
        /// Tasks that wait for the page to be loaded: resumed with 0 or a negative errno.
        var waiters: [CompletionContinuation] = []
    }

    // SAFETY: both allocated here and freed in deinit; `memory` is page-aligned and doubles as I/O buffer.
    let memory: UnsafeMutableRawPointer
    let referenced: UnsafeMutablePointer<Atomic<UInt8>>
    let slotCount: Int
    private var slots: [Slot]
    private var clockHand = 0
    /// Slots that have a page, or get one.
    private var usedCount = 0
    private var evictions: UInt64 = 0

    /// Page words that may still be made for the image's tables.
    private var pageWordsLeft: Int
    /// The words of pages that are in memory, and whose tables got no page words. Lookups without a lock miss these.
    private var wordsOfOthers: [Int: PageWord] = [:]

    /// 32 MiB of page words: those of 16 GiB of tables, which map 128 TiB in the usual geometry. They are never freed while
    /// the image is open, so that lookups need no lock; and an image may name more tables than there is memory, above all one
    /// that is only read, where many L1 entries may name one hole.
    static let standardPageWordLimit = 4 << 20
    private(set) var dirtySlots: [Int] = []
    /// What the running commit has taken. The first `writtenCount` have been written; the others are still dirty, or a snapshot
    /// of them is on its way. Its memory is kept, so that a commit allocates none.
    private var committing: [Int] = []
    private var writtenCount = 0

    /// - Parameters:
    ///   - budgetBytes: of pages; at least 16 of them.
    ///   - pageWordLimit: how many page words may be made.
    /// - Throws: the errno of `mmap`.
    init(budgetBytes: Int, pageWordLimit: Int = PageCache.standardPageWordLimit) throws(Errno) {
        precondition(budgetBytes >= 0 && pageWordLimit >= 0, "a budget below nothing")
        slotCount = max(budgetBytes / QEDGeometry.l2PageSizeBytes, 16)
        memory = try PageCache.mapZeros(slotCount * QEDGeometry.l2PageSizeBytes)
        pageWordsLeft = pageWordLimit
        referenced = .allocate(capacity: slotCount)
        for slot in 0..<slotCount { (referenced + slot).initialize(to: Atomic(0)) }
        slots = Array(repeating: Slot(), count: slotCount)
    }

    /// Zeros that take no memory until they are used; for `munmap`.
    static func mapZeros(_ sizeBytes: Int) throws(Errno) -> UnsafeMutableRawPointer {
        let mapped = mmap(nil, sizeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(rawValue: errno) }
        // A huge page would take 2 MiB for the first 4 KiB.
        madvise(mapped, sizeBytes, MADV_NOHUGEPAGE)
        return mapped
    }

    deinit {
        munmap(memory, slotCount * QEDGeometry.l2PageSizeBytes)
        referenced.deallocate()
    }

    subscript(slot: Int) -> Slot {
        get { slots[slot] }
        _modify { yield &slots[slot] }
    }

    func address(ofSlot slot: Int) -> UnsafeMutableRawPointer { memory + slot * QEDGeometry.l2PageSizeBytes }

    /// Entries of a slot that is not published, or is only read: plain values, little-endian.
    func values(ofSlot slot: Int) -> UnsafeMutablePointer<UInt64> {
        address(ofSlot: slot).assumingMemoryBound(to: UInt64.self)
    }

    /// The slot of a page that is resident or loading.
    func slot(ofPage page: Int, in tables: ImageTables) -> Int? {
        if let slot = word(ofPage: page, in: tables).slot { return slot }
        return loadingSlots.first { slots[$0].page == page }
    }

    private var loadingSlots: [Int] = []

    /// What is known of a page.
    func word(ofPage page: Int, in tables: ImageTables) -> PageWord {
        guard let words = tables.tableWord(tables.geometry.l1Index(ofL2Page: page)).pageWords else {
            return wordsOfOthers[page] ?? .absent
        }
        return PageWord(rawValue: words[page & (tables.geometry.pagesPerTable - 1)].load(ordering: .acquiring))
    }

    /// Links a new, empty L2 table into the image.
    mutating func addTable(_ l1Index: Int, fileOffset: UInt64, to tables: ImageTables) {
        precondition(tables.tableWord(l1Index) == .unallocated, "a second table for one L1 entry")
        tables.setTable(l1Index, fileOffset: fileOffset)
        if takesPageWords(tables) {
            tables.publishPageWords(ofTable: l1Index, initially: .allUnallocated)
        } else {
            // Its pages are read like any other's: in fresh space they are zeros.
            tables.publishWithoutPageWords(l1Index)
        }
        precondition(tables.tableFileOffset(l1Index) == fileOffset, "a table that is not found where it is")
    }

    private mutating func takesPageWords(_ tables: ImageTables) -> Bool {
        guard tables.geometry.pagesPerTable <= pageWordsLeft else { return false }
        pageWordsLeft -= tables.geometry.pagesPerTable
        return true
    }

    /// A free slot for a page, the clock's next victim if need be.
    /// - Returns: nil when every page is dirty or in use: a commit must come first.
    mutating func takeSlot(in tables: ImageTables) -> Int? {
        // Two turns: the first may only clear the reference bits.
        for _ in 0..<(2 * slotCount) {
            let candidate = clockHand
            clockHand = clockHand + 1 == slotCount ? 0 : clockHand + 1
            let slot = slots[candidate]
            switch slot.phase {
            case .free:
                precondition(
                    slot.pinCount == 0 && !slot.isBeingWritten && slot.waiters.isEmpty && slot.unsealed.isEmpty,
                    "a free slot that somebody has")
                return candidate
            case .loading: continue
            case .resident:
                if (slot.isDirty && !isSabotaged(.evictDirtyPages)) || slot.isBeingWritten || slot.pinCount > 0 {
                    continue
                }
                if referenced[candidate].exchange(0, ordering: .relaxed) != 0 { continue }
                setWord(.absent, ofPage: slot.page, in: tables)
                // A lookup that sees what is next stored in the slot must see that the word has changed. The store of the word
                // releases what came before it and holds nothing back that comes after: that is this fence's part, with the
                // load of the entry in `PageLookup`, which acquires and so comes before the second load of the word. Without
                // it ARM64 may show the next page's entry first.
                atomicMemoryFence(ordering: .releasing)
                slots[candidate].phase = .free
                usedCount -= 1
                evictions &+= 1
                precondition(slot.waiters.isEmpty, "somebody waits for a page that is there")
                slots[candidate].unsealed = []
                return candidate
            }
        }
        return nil
    }

    /// Whether `takeSlot` would find one.
    var hasRoom: Bool {
        slots.contains { slot in
            switch slot.phase {
            case .free: true
            case .loading: false
            case .resident: !slot.isDirty && !slot.isBeingWritten && slot.pinCount == 0
            }
        }
    }

    /// What its pages take. Counted as they come and go: to look at every slot would keep others from the lock.
    var use: PageUse { PageUse(pages: usedCount, pageLimit: slotCount, evictions: evictions) }

    /// Claims `slot` for a page that is about to be read into it.
    mutating func beginLoading(_ slot: Int, page: Int, in tables: ImageTables) {
        precondition(slots[slot].phase == .free, "the slot is taken")
        precondition(self.slot(ofPage: page, in: tables) == nil, "a page that is there already, or comes")
        slots[slot].phase = .loading
        usedCount += 1
        slots[slot].page = page
        slots[slot].generation &+= 1
        slots[slot].isCareful = false
        loadingSlots.append(slot)
    }

    /// Publishes a page that has been read, or gives the slot back where that failed.
    /// - Returns: the tasks to resume.
    mutating func endLoading(_ slot: Int, in tables: ImageTables, succeeded: Bool, isCareful: Bool) -> [CompletionContinuation] {
        precondition(slots[slot].phase == .loading, "the page was not being loaded")
        precondition(
            (!slots[slot].isDirty || isSabotaged(.evictDirtyPages)) && slots[slot].pinCount == 0,
            "a page that changes before it is there")
        loadingSlots.removeAll { $0 == slot }
        slots[slot].phase = succeeded ? .resident : .free
        if !succeeded { usedCount -= 1 }
        slots[slot].isCareful = isCareful
        referenced[slot].store(1, ordering: .relaxed)
        if succeeded { publish(slot, in: tables) }
        let waiters = slots[slot].waiters
        slots[slot].waiters = []
        if isSabotaged(.dropPageWaiters) { return [] }
        return waiters
    }

    /// Makes a page of zeros resident without reading: for a table that this process has made.
    mutating func addEmptyPage(_ slot: Int, page: Int, in tables: ImageTables) {
        precondition(slots[slot].phase == .free, "the slot is taken")
        precondition(word(ofPage: page, in: tables) == .allUnallocated, "a page of zeros in place of one that was written")
        slots[slot].phase = .resident
        usedCount += 1
        slots[slot].page = page
        slots[slot].generation &+= 1
        slots[slot].isCareful = false
        // Atomic stores: a lookup that still holds the slot's former page may be reading.
        let entries = tables.lookup.entries(ofSlot: slot)
        for index in 0..<QEDGeometry.entriesPerL2Page { entries[index].store(0, ordering: .relaxed) }
        referenced[slot].store(1, ordering: .relaxed)
        publish(slot, in: tables)
    }

    private mutating func publish(_ slot: Int, in tables: ImageTables) {
        precondition(slots[slot].phase == .resident, "a page is found before it is there")
        let word = PageWord(slot: slot, generation: slots[slot].generation, isCareful: slots[slot].isCareful)
        setWord(word, ofPage: slots[slot].page, in: tables)
    }

    private mutating func setWord(_ word: PageWord, ofPage page: Int, in tables: ImageTables) {
        let l1Index = tables.geometry.l1Index(ofL2Page: page)
        let table = tables.tableWord(l1Index)
        precondition(table != .unallocated && table != .invalid, "a page of a table that does not exist")
        let words =
            table.pageWords
            ?? (word != .absent && takesPageWords(tables) ? tables.publishPageWords(ofTable: l1Index, initially: .absent) : nil)
        guard let words else {
            wordsOfOthers[page] = word == .absent ? nil : word
            return
        }
        words[page & (tables.geometry.pagesPerTable - 1)].store(word.rawValue, ordering: .releasing)
    }

    /// Changes an entry of a resident page of the image itself and marks the page dirty.
    /// - Parameter sealedBySync: the sync that must complete before the entry may be written; nil if none.
    mutating func setEntry(_ slot: Int, index: Int, to value: UInt64, in tables: ImageTables, sealedBySync: UInt64?) {
        precondition(slots[slot].phase == .resident, "an entry of a page that is not in memory")
        precondition(index >= 0 && index < QEDGeometry.entriesPerL2Page, "an entry outside its page")
        let entry = tables.lookup.entries(ofSlot: slot) + index
        if let sealedBySync {
            let oldValue = UInt64(littleEndian: entry.pointee.load(ordering: .relaxed))
            slots[slot].unsealed.append(UnsealedEntry(index: index, oldValue: oldValue, sealedBySync: sealedBySync))
        }
        entry.pointee.store(value.littleEndian, ordering: .releasing)
        slots[slot].changeCount &+= 1
        if isSabotaged(.forgetDirtyPage) && index % 8 == 3 { return }
        markDirty(slot)
    }

    /// Marks a page for the next commit: because it has changed, or because the last one could not write it.
    private mutating func markDirty(_ slot: Int) {
        precondition(
            slots[slot].phase == .resident || isSabotaged(.evictDirtyPages), "a page is to be written that is not in memory")
        slots[slot].isDirty = true
        guard !slots[slot].isListed else { return }
        slots[slot].isListed = true
        dirtySlots.append(slot)
    }

    /// A commit begins: it takes all dirty pages. They stay where they are until it has written them, or has failed.
    mutating func beginCommit() {
        precondition(committing.isEmpty && writtenCount == 0, "two commits at a time")
        for index in 0..<dirtySlots.count {
            let slot = dirtySlots[index]
            slots[slot].isListed = false
            if slots[slot].isDirty { committing.append(slot) }
        }
        dirtySlots.removeAll(keepingCapacity: true)
    }

    /// How many pages the running commit has yet to write.
    var unwrittenCount: Int { committing.count - writtenCount }

    /// One of them, for `snapshot`, in the order in which they are to be written.
    func unwrittenPage(_ number: Int) -> Int { committing[writtenCount + number] }

    /// Whether an entry of them must not be written before a sync later than `completedSync`.
    func commitWaits(forSyncAfter completedSync: UInt64) -> Bool {
        committing[writtenCount...].contains { slots[$0].unsealed.contains { $0.sealedBySync > completedSync } }
    }

    /// Copies what may be written of a page to `destination`: every entry that is sealed by the syncs up to
    /// `completedSync`, and the old value of the others. A page with unsealed entries stays dirty.
    mutating func snapshot(_ slot: Int, completedSync: UInt64, into destination: UnsafeMutableRawPointer) {
        precondition(slots[slot].isDirty && !slots[slot].isBeingWritten, "only a dirty page is written, and once at a time")
        precondition(
            slots[slot].phase == .resident || isSabotaged(.evictDirtyPages), "a page is written that is not in memory")
        slots[slot].isDirty = false
        slots[slot].isBeingWritten = true
        destination.copyMemory(from: address(ofSlot: slot), byteCount: QEDGeometry.l2PageSizeBytes)
        slots[slot].unsealed.removeAll { $0.sealedBySync <= completedSync || isSabotaged(.writeLivePage) }
        let entries = destination.assumingMemoryBound(to: UInt64.self)
        // From the newest to the oldest: an entry that changed twice goes out as it was first.
        for entry in slots[slot].unsealed.reversed() { entries[entry.index] = entry.oldValue.littleEndian }
        if !slots[slot].unsealed.isEmpty { markDirty(slot) }
    }

    /// How many entries of a page were set since this was last asked.
    mutating func takeChangeCount(_ slot: Int) -> Int {
        defer { slots[slot].changeCount = 0 }
        return slots[slot].changeCount
    }

    /// The snapshots of the commit's next pages have been written.
    mutating func snapshotsWritten(_ count: Int) {
        precondition(count > 0 && count <= unwrittenCount, "pages that the commit did not take")
        for number in 0..<count {
            let slot = unwrittenPage(number)
            precondition(slots[slot].isBeingWritten, "the page was not being written")
            slots[slot].isBeingWritten = false
            if isSabotaged(.forgetChangeDuringWrite) { slots[slot].isDirty = false }
        }
        writtenCount += count
        if unwrittenCount == 0 { endCommit() }
    }

    /// The commit has failed: all that it took and did not write is for the next one, snapshots under way included.
    ///
    /// One transition: a page that is neither being written nor dirty may be evicted at any moment by another queue, and what
    /// was its slot's would become another page's.
    mutating func commitFailed() {
        for number in 0..<unwrittenCount {
            let slot = unwrittenPage(number)
            slots[slot].isBeingWritten = false
            if !isSabotaged(.forgetUnwrittenPages) { markDirty(slot) }
        }
        endCommit()
        precondition(dirtySlots.allSatisfy { slots[$0].phase == .resident }, "a dirty page that is none")
    }

    private mutating func endCommit() {
        committing.removeAll(keepingCapacity: true)
        writtenCount = 0
    }

    #if QED_SABOTAGE
    /// `commitFailed` in two steps: of what is evicted between them the changes are lost.
    mutating func sabotageBeginFailure() -> [(slot: Int, generation: UInt32)] {
        let pages = Array(committing[writtenCount...])
        for slot in pages { slots[slot].isBeingWritten = false }
        endCommit()
        return pages.map { ($0, slots[$0].generation) }
    }

    mutating func sabotageEndFailure(_ pages: [(slot: Int, generation: UInt32)]) {
        for page in pages where slots[page.slot].generation == page.generation && slots[page.slot].phase == .resident {
            markDirty(page.slot)
        }
    }
    #endif
}
