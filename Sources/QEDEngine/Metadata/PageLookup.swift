import QEDFormat
import Synchronization

/// What the cache knows of one 4 KiB page of an L2 table, in one word that is read without a lock.
///
/// Bits 0-31: the slot that holds the page, plus one. Bits 32-61: the slot's generation. Bit 62: the page holds entries that
/// must be judged one by one. Bit 63 alone: the page is not in memory, and all its entries are 0. All bits 0: unknown.
struct PageWord: RawRepresentable, Equatable {
    let rawValue: UInt64

    @inline(__always) init(rawValue: UInt64) { self.rawValue = rawValue }

    @inline(__always)
    init(slot: Int, generation: UInt32, isCareful: Bool) {
        rawValue =
            UInt64(truncatingIfNeeded: slot &+ 1) & 0xffff_ffff | UInt64(generation & 0x3fff_ffff) << 32
            | (isCareful ? PageWord.carefulBit : 0)
    }

    static let absent = PageWord(rawValue: 0)
    /// A table made by this process whose page has never been written: a table in fresh space reads as zeros.
    static let allUnallocated = PageWord(rawValue: 1 << 63)

    private static let carefulBit: UInt64 = 1 << 62

    @inline(__always) var slot: Int? {
        let low = rawValue & 0xffff_ffff
        return low == 0 ? nil : Int(truncatingIfNeeded: low) - 1
    }
    @inline(__always) var isCareful: Bool { rawValue & PageWord.carefulBit != 0 }
}

/// The state of one L1 entry as lookups see it: no table, a bad entry, a table without page words (that nobody has touched
/// yet, or that has come too late to get some), or the address of the table's page words.
struct TableWord: RawRepresentable, Equatable {
    let rawValue: UInt

    static let unallocated = TableWord(rawValue: 0)
    static let invalid = TableWord(rawValue: 1)
    static let untouched = TableWord(rawValue: 2)

    /// SAFETY: the block of page words is allocated once and never freed while the image is open.
    @inline(__always) var pageWords: UnsafeMutablePointer<Atomic<UInt64>>? {
        rawValue <= 2 ? nil : UnsafeMutablePointer(bitPattern: rawValue)
    }
}

/// Finds L2 entries in memory, on any thread, without locks: two loads to the page, one to the entry.
///
/// A page may be evicted, and its slot given to another page, while somebody reads an entry. So the page's word is read
/// again after the entry: if it changed, the entry counts as not found. (The order: an eviction stores the word, then a fence,
/// then other entries; a lookup loads an entry, acquiring, then the word.) Slots are never unmapped while the image is open,
/// and data clusters never move, so nothing worse than a miss can happen.
struct PageLookup: @unchecked Sendable {
    // SAFETY: all three point to memory that lives as long as the image and is only accessed through atomics.
    let tables: UnsafeMutablePointer<Atomic<UInt>>
    let memory: UnsafeMutableRawPointer
    let referenced: UnsafeMutablePointer<Atomic<UInt8>>
    let geometry: QEDGeometry

    /// What is said of an entry that is not simply a value: no valid entry has these.
    static let miss: UInt64 = 2
    static let invalid: UInt64 = 3

    /// The entry of the cluster at `deviceOffset`: 0, 1, a cluster's file offset, `miss` or `invalid`.
    ///
    /// Pages with questionable entries always answer `miss`; the slow path judges them entry by entry.
    @inline(__always)
    func entry(at deviceOffset: UInt64) -> UInt64 {
        let table = TableWord(
            rawValue: tables[geometry.l1Index(ofDeviceOffset: deviceOffset)].load(ordering: .acquiring))
        guard let words = table.pageWords else {
            switch table {
            case .unallocated: return L2Entry.unallocatedValue
            case .invalid: return PageLookup.invalid
            default: return PageLookup.miss
            }
        }
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset) & (geometry.pagesPerTable &- 1)
        let word = PageWord(rawValue: words[page].load(ordering: .acquiring))
        guard let slot = word.slot, !word.isCareful else {
            return word == .allUnallocated ? L2Entry.unallocatedValue : PageLookup.miss
        }
        let value = entries(ofSlot: slot)[geometry.indexInL2Page(ofDeviceOffset: deviceOffset)].load(
            ordering: .acquiring)
        guard words[page].load(ordering: .relaxed) == word.rawValue else { return PageLookup.miss }
        if referenced[slot].load(ordering: .relaxed) == 0 { referenced[slot].store(1, ordering: .relaxed) }
        return UInt64(littleEndian: value)
    }

    /// The 512 entries that a slot holds, little-endian.
    ///
    /// SAFETY: `Atomic<UInt64>` has the layout of `UInt64`; the slab is page-aligned and lives as long as the image.
    @inline(__always)
    func entries(ofSlot slot: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
        (memory + slot &* QEDGeometry.l2PageSizeBytes).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
