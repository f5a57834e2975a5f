import QEDFormat
import Synchronization

/// What the chain as a whole has for a piece of the disk, of the size of the smallest cluster in it: which file, and where.
///
/// Layers are numbered from the bottom here, so that a new top changes nothing of what is known.
struct ResolvedEntry: RawRepresentable, Equatable {
    let rawValue: UInt64

    @inline(__always) init(rawValue: UInt64) { self.rawValue = rawValue }

    /// - Parameter fileOffset: a multiple of the smallest cluster.
    @inline(__always)
    init(layerNumber: Int, fileOffset: UInt64) {
        rawValue = fileOffset & ~ResolvedEntry.numberMask | UInt64(truncatingIfNeeded: layerNumber &+ ResolvedEntry.firstNumber)
    }

    /// Not in memory; or, of a page that is being made, in none of the layers that were looked at.
    static let unknown = ResolvedEntry(rawValue: 0)
    /// In no file.
    static let zeros = ResolvedEntry(rawValue: 1)

    private static let firstNumber = 2
    /// Clusters have no fewer bytes, so that their offsets have no such bits.
    private static let numberMask = QEDLimits.minimumClusterSizeBytes - 1
    /// The entry of the layer that decides cannot be right. Behind that layer's end, or that of one above it, nobody looks.
    static func invalid(layerNumber: Int) -> ResolvedEntry { ResolvedEntry(layerNumber: layerNumber, fileOffset: nowhere) }
    private static let nowhere = ~numberMask

    /// How many layers have a number.
    static let layerLimit = Int(numberMask) + 1 - firstNumber

    /// A layer has it, or decides that nobody can tell.
    @inline(__always) var isOfLayer: Bool { rawValue > ResolvedEntry.zeros.rawValue }
    @inline(__always) var isInvalid: Bool { rawValue >= ResolvedEntry.nowhere }
    /// Of one of a layer.
    @inline(__always) var layerNumber: Int {
        Int(truncatingIfNeeded: rawValue & ResolvedEntry.numberMask) &- ResolvedEntry.firstNumber
    }
    @inline(__always) var fileOffset: UInt64 { rawValue & ~ResolvedEntry.numberMask }
}

/// Which page of the chain is in memory for a place of the directory, in one word that is read without a lock.
///
/// Bits 0-19: the slot that holds the page, plus one; all bits 0: no page. Bits 20-39: the slot's generation. Bits 40-61: the
/// page's number without those of the place. Bit 63: the page is being made, and not for lookups.
struct ResolvedWord: RawRepresentable, Equatable {
    let rawValue: UInt64

    @inline(__always) init(rawValue: UInt64) { self.rawValue = rawValue }

    init(slot: Int, generation: UInt32, tag: Int, isBeingMade: Bool) {
        precondition(slot < ResolvedWord.slotLimit && tag < 1 << 22, "more slots or pages than a word can tell apart")
        rawValue =
            UInt64(slot + 1) | UInt64(generation & 0xf_ffff) << 20 | UInt64(tag) << 40
            | (isBeingMade ? ResolvedWord.beingMadeBit : 0)
    }

    static let absent = ResolvedWord(rawValue: 0)
    static let slotLimit = (1 << 20) - 1
    private static let beingMadeBit: UInt64 = 1 << 63

    @inline(__always) var slot: Int { Int(truncatingIfNeeded: rawValue & 0xf_ffff) &- 1 }
    @inline(__always) var tag: Int { Int(truncatingIfNeeded: (rawValue &<< 1) &>> 41) }
    @inline(__always) var isBeingMade: Bool { rawValue & ResolvedWord.beingMadeBit != 0 }
    /// Whether lookups find the page with this tag.
    @inline(__always) func shows(_ tag: Int) -> Bool {
        Int(truncatingIfNeeded: rawValue &>> 40) == tag && rawValue & 0xf_ffff != 0
    }
}

/// Finds resolved entries in memory, on any thread, without locks, as `PageLookup` does; see there for the order of accesses.
struct ResolvedLookup: @unchecked Sendable {
    // SAFETY: all three point to memory that lives as long as the `ResolvedPages` and is only accessed through atomics.
    let words: UnsafeMutablePointer<Atomic<UInt64>>
    let memory: UnsafeMutableRawPointer
    let referenced: UnsafeMutablePointer<Atomic<UInt8>>
    /// log2 of the bytes of an entry: of the smallest cluster of the chain.
    let clusterShift: UInt64
    /// log2 of the places in the directory.
    let wordShift: Int

    @inline(__always) var clusterMask: UInt64 { (1 &<< clusterShift) &- 1 }

    @inline(__always)
    func page(of deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: deviceOffset &>> clusterShift) / QEDGeometry.entriesPerL2Page
    }

    @inline(__always)
    func index(of deviceOffset: UInt64) -> Int {
        Int(truncatingIfNeeded: deviceOffset &>> clusterShift) & (QEDGeometry.entriesPerL2Page &- 1)
    }

    /// The first byte of the disk that a page is for; the last ones may be behind the disk's end.
    func deviceOffset(ofPage page: Int) -> UInt64 { UInt64(page * QEDGeometry.entriesPerL2Page) << clusterShift }

    /// The page's place in the directory, and what tells it from others with the same place.
    @inline(__always) func place(ofPage page: Int) -> Int { page & ((1 &<< wordShift) &- 1) }
    @inline(__always) func tag(ofPage page: Int) -> Int { page &>> wordShift }

    @inline(__always)
    func entry(at deviceOffset: UInt64) -> ResolvedEntry {
        let page = page(of: deviceOffset)
        let place = place(ofPage: page)
        let word = ResolvedWord(rawValue: words[place].load(ordering: .acquiring))
        guard word.shows(tag(ofPage: page)) else { return .unknown }
        let value = entries(ofSlot: word.slot)[index(of: deviceOffset)].load(ordering: .acquiring)
        guard words[place].load(ordering: .relaxed) == word.rawValue else { return .unknown }
        if referenced[word.slot].load(ordering: .relaxed) == 0 { referenced[word.slot].store(1, ordering: .relaxed) }
        return ResolvedEntry(rawValue: value)
    }

    /// SAFETY: `Atomic<UInt64>` has the layout of `UInt64`; the slab is page-aligned and lives as long as the pages.
    @inline(__always)
    func entries(ofSlot slot: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (memory + slot &* QEDGeometry.l2PageSizeBytes).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
