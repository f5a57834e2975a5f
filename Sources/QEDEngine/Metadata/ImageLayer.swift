import QEDFormat
import Synchronization

/// One QED file of a chain as the engine knows it: its header, its L1 table and the directory of its L2 pages.
///
/// The L1 table is held only as far as the image's size needs it. `l1Values` is touched under the image's lock; `lookup`
/// may be used by any thread at any time.
final class ImageLayer: @unchecked Sendable {
    /// Position in the chain: 0 is the image itself, 1 its backing file, and so on.
    let index: Int
    let header: QEDHeader
    let geometry: QEDGeometry
    let bounds: TableEntryBounds
    /// Length of the file when it was opened.
    let fileSizeBytes: UInt64
    let lookup: PageLookup

    // SAFETY: allocated here, freed in deinit; guarded by the image's lock.
    private let l1Values: UnsafeMutableBufferPointer<UInt64>

    /// - Parameter l1: the raw values of the first entries of the L1 table, host byte order, as many as the size needs.
    init(index: Int, header: QEDHeader, fileSizeBytes: UInt64, l1: [UInt64], cache: borrowing PageCache) {
        self.index = index
        self.header = header
        geometry = header.geometry
        self.fileSizeBytes = fileSizeBytes
        bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        l1Values = .allocate(capacity: l1.count)
        _ = l1Values.initialize(from: l1)
        let tables = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: max(l1.count, 1))
        for (position, value) in l1.enumerated() {
            let word: TableWord =
                switch bounds.l1Entry(value) {
                case .unallocated: .unallocated
                case .allocated: .untouched
                case .invalid: .invalid
                }
            (tables + position).initialize(to: Atomic(word.rawValue))
        }
        lookup = PageLookup(
            tables: tables, memory: cache.memory, referenced: cache.referenced, geometry: header.geometry)
    }

    deinit {
        for position in 0..<l1Values.count {
            if let words = tableWord(position).pageWords { words.deallocate() }
        }
        lookup.tables.deallocate()
        l1Values.deallocate()
    }

    var l1EntryCount: Int { l1Values.count }

    func tableWord(_ l1Index: Int) -> TableWord {
        TableWord(rawValue: lookup.tables[l1Index].load(ordering: .acquiring))
    }

    /// The L1 entry as it stands in memory: the file offset of a valid table, or 0. Under the image's lock.
    func tableFileOffset(_ l1Index: Int) -> UInt64? {
        switch tableWord(l1Index) {
        case .unallocated, .invalid: nil
        default: l1Values[l1Index]
        }
    }

    /// The raw L1 entries from `first`, for writing them to the file. Under the image's lock.
    func l1Value(_ l1Index: Int) -> UInt64 { l1Values[l1Index] }

    /// The words of a table's pages, made at the first touch. Under the image's lock.
    func pageWords(ofTable l1Index: Int) -> UnsafeMutablePointer<Atomic<UInt64>>? {
        let word = tableWord(l1Index)
        guard word == .untouched else { return word.pageWords }
        return publishPageWords(ofTable: l1Index, initially: .absent)
    }

    /// Links a new, empty L2 table. Under the image's lock.
    func addTable(_ l1Index: Int, fileOffset: UInt64) {
        precondition(tableWord(l1Index) == .unallocated, "a second L2 table for one L1 entry")
        precondition(fileOffset & geometry.clusterMask == 0, "an L2 table that is not aligned")
        l1Values[l1Index] = fileOffset
        _ = publishPageWords(ofTable: l1Index, initially: .allUnallocated)
    }

    private func publishPageWords(
        ofTable l1Index: Int, initially word: PageWord
    ) -> UnsafeMutablePointer<Atomic<UInt64>> {
        let words = UnsafeMutablePointer<Atomic<UInt64>>.allocate(capacity: geometry.pagesPerTable)
        for page in 0..<geometry.pagesPerTable { (words + page).initialize(to: Atomic(word.rawValue)) }
        lookup.tables[l1Index].store(UInt(bitPattern: words), ordering: .releasing)
        return words
    }

    /// Where the page's 4 KiB lie in the file, or nil where there is no table. Under the image's lock.
    func fileOffset(ofPage page: Int) -> UInt64? {
        guard let table = tableFileOffset(geometry.l1Index(ofL2Page: page)) else { return nil }
        return table + geometry.offsetInTable(ofL2Page: page)
    }
}
