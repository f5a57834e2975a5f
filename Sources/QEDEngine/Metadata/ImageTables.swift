import Glibc
import QEDFormat
import Synchronization

/// What the engine has of the image's own file in memory: its header, its L1 table and the directory of its L2 pages. (Of the
/// files beneath it: `BaseTables`.)
///
/// Whose page words are made, and when, is the cache's affair. The L1 table has room for what the image can grow to, in memory
/// that is not even there until it is used. `l1Values` is touched under the image's lock; `lookup` may be used by any thread at
/// any time.
final class ImageTables: @unchecked Sendable {
    let header: QEDHeader
    let geometry: QEDGeometry
    let bounds: TableEntryBounds
    /// Length of the file when it was opened.
    let fileSizeBytes: UInt64
    let lookup: PageLookup

    // SAFETY: allocated here, freed in deinit; guarded by the image's lock.
    private let l1Values: UnsafeMutablePointer<UInt64>
    /// As many as the image has, or can be grown to.
    let l1EntryCount: Int
    /// The image cannot grow beyond that while it is served.
    var largestSizeBytes: UInt64 {
        let (size, overflow) = UInt64(l1EntryCount).multipliedReportingOverflow(by: geometry.bytesPerL2Table)
        return overflow ? geometry.maximumImageSizeBytes : min(size, geometry.maximumImageSizeBytes)
    }
    /// Of entries of L1 tables beyond what the size needs: 8 MiB of addresses, twice.
    private static let largestSpareCount = 1 << 20

    /// - Parameter l1: the raw values of the first entries of the L1 table, host byte order, as many as the size needs.
    init(header: QEDHeader, fileSizeBytes: UInt64, l1: [UInt64], cache: borrowing PageCache) {
        self.header = header
        geometry = header.geometry
        self.fileSizeBytes = fileSizeBytes
        bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
        precondition(
            UInt64(l1.count) == geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes),
            "entries of another size's L1 table")
        l1EntryCount = max(l1.count, min(header.geometry.entriesPerTable, ImageTables.largestSpareCount))
        // SAFETY: memory of zeros holds entries of 0, and words of no table: their pages are not even touched.
        l1Values = ImageTables.zeroed(l1EntryCount).assumingMemoryBound(to: UInt64.self)
        let tables = ImageTables.zeroed(l1EntryCount).assumingMemoryBound(to: Atomic<UInt>.self)
        for (position, value) in l1.enumerated() where value != L2Entry.unallocatedValue {
            l1Values[position] = value
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
        for position in 0..<l1EntryCount {
            if let words = tableWord(position).pageWords { words.deallocate() }
        }
        free(lookup.tables)
        free(l1Values)
    }

    private static func zeroed(_ wordCount: Int) -> UnsafeMutableRawPointer {
        guard let memory = calloc(max(wordCount, 1), MemoryLayout<UInt64>.size) else {
            preconditionFailure("no memory for an L1 table of \(wordCount) entries")
        }
        return memory
    }

    func tableWord(_ l1Index: Int) -> TableWord {
        precondition(l1Index >= 0 && l1Index < l1EntryCount, "an L1 entry that the image does not have")
        return TableWord(rawValue: lookup.tables[l1Index].load(ordering: .acquiring))
    }

    /// The L1 entry as it stands in memory: the file offset of a valid table, or 0. Under the image's lock.
    func tableFileOffset(_ l1Index: Int) -> UInt64? {
        switch tableWord(l1Index) {
        case .unallocated, .invalid: nil
        default: l1Values[l1Index]
        }
    }

    /// The raw L1 entries from `first`, for writing them to the file. Under the image's lock.
    func l1Value(_ l1Index: Int) -> UInt64 {
        precondition(l1Index >= 0 && l1Index < l1EntryCount, "an L1 entry that the image does not have")
        return l1Values[l1Index]
    }

    /// Those that an image of that size needs. Under the image's lock.
    func l1(ofSizeBytes sizeBytes: UInt64) -> [UInt64] {
        let count = geometry.requiredL1Entries(imageSizeBytes: sizeBytes)
        precondition(count <= l1EntryCount, "an L1 entry that the image does not have")
        return Array(UnsafeBufferPointer(start: l1Values, count: count))
    }

    /// The raw entry of a new, empty L2 table. Under the image's lock; the caller publishes the table.
    func setTable(_ l1Index: Int, fileOffset: UInt64) {
        precondition(tableWord(l1Index) == .unallocated, "a second L2 table for one L1 entry")
        precondition(fileOffset & geometry.clusterMask == 0 && fileOffset > 0, "an L2 table that is not aligned")
        l1Values[l1Index] = fileOffset
    }

    /// From now on lookups know that there is a table, but nothing of its pages. Under the image's lock.
    func publishWithoutPageWords(_ l1Index: Int) {
        precondition(
            tableWord(l1Index) == .unallocated && l1Values[l1Index] != L2Entry.unallocatedValue,
            "a table is published twice, or is none")
        lookup.tables[l1Index].store(TableWord.untouched.rawValue, ordering: .releasing)
    }

    /// Makes the words of a table's pages, for lookups to find. Under the image's lock.
    @discardableResult
    func publishPageWords(
        ofTable l1Index: Int, initially word: PageWord
    ) -> UnsafeMutablePointer<Atomic<UInt64>> {
        precondition(tableWord(l1Index).pageWords == nil, "a second block of page words for one table")
        precondition(l1Values[l1Index] != L2Entry.unallocatedValue, "page words of a table that does not exist")
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
