import QEDFormat

/// A second opinion on an image's structure, from its bytes alone: shares no code with the engine's check, knows nothing
/// of repairs, and judges by QEMU's rules.
struct StructureWalk {
    private(set) var problem: String?
    private(set) var needCheck = false
    private(set) var clusterShift: UInt64 = 16
    /// File offset of the end of the last cluster in use.
    private(set) var end: UInt64 = 0
    private(set) var imageSizeBytes: UInt64 = 0
    /// File ranges of all tables and the header area.
    private(set) var tables: [Range<Int>] = []
    private(set) var leakedClusters = 0
    private var tableShift: UInt64 = 0
    private var l1: [(index: Int, offset: Int)] = []
    private var pages: SparsePages
    private(set) var length: UInt64

    init(_ pages: SparsePages, length: UInt64) {
        self.length = length
        self.pages = pages
        guard pages.word(at: 0) & 0xffff_ffff == 0x0044_4551 else {
            problem = "the magic number is gone"
            return
        }
        let clusterSize = pages.word(at: 0) >> 32
        let tableClusters = pages.word(at: 8) & 0xffff_ffff
        let headerClusters = pages.word(at: 8) >> 32
        let features = pages.word(at: 16)
        let l1Offset = pages.word(at: 40)
        imageSizeBytes = pages.word(at: 48)
        guard clusterSize.nonzeroBitCount == 1, tableClusters.nonzeroBitCount == 1, features & ~7 == 0 else {
            problem = "the header is damaged"
            return
        }
        needCheck = features & 2 != 0
        clusterShift = UInt64(clusterSize.trailingZeroBitCount)
        tableShift = clusterShift + UInt64(tableClusters.trailingZeroBitCount) - 3
        let mask = clusterSize - 1
        let clusters = Int(((length + 511) & ~511) >> clusterShift)
        var owned = [Bool](repeating: false, count: clusters)

        func claim(_ offset: UInt64, _ count: UInt64, _ what: @autoclosure () -> String) -> String? {
            if offset & mask != 0 { return "\(what()) at \(offset) is not aligned" }
            let first = Int(offset >> clusterShift)
            guard first + Int(count) <= clusters else {
                return "\(what()) at \(offset) lies past the end of the file, \(length)"
            }
            for cluster in first..<(first + Int(count)) {
                if owned[cluster] { return "\(what()) at \(offset) has another owner" }
                owned[cluster] = true
            }
            end = max(end, UInt64(first + Int(count)) << clusterShift)
            return nil
        }

        problem = claim(0, headerClusters, "the header area") ?? claim(l1Offset, tableClusters, "the L1 table")
        if problem != nil { return }
        let tableBytes = Int(clusterSize * tableClusters)
        tables = [0..<Int(headerClusters * clusterSize), Int(l1Offset)..<(Int(l1Offset) + tableBytes)]
        // Table first, then what it maps: no table may lie where another one's data does.
        StructureWalk.forEachEntry(pages, Int(l1Offset), tableBytes) { index, value in
            if value == 1 { problem = problem ?? "L1 entry \(index) is 1" }
            problem = problem ?? claim(value, tableClusters, "the L2 table of L1 entry \(index)")
            l1.append((index, Int(value)))
            tables.append(Int(value)..<(Int(value) + tableBytes))
        }
        if problem != nil { return }
        for table in l1 {
            StructureWalk.forEachEntry(pages, table.offset, tableBytes) { index, value in
                if value == 1 || problem != nil { return }
                problem = claim(value, 1, "the data cluster of entry \(index) in the table of L1 entry \(table.index)")
            }
        }
        leakedClusters = owned.count { !$0 }
    }

    /// Calls `body` for each entry that is not 0.
    private static func forEachEntry(
        _ pages: SparsePages, _ offset: Int, _ byteCount: Int, _ body: (Int, UInt64) -> Void
    ) {
        for first in stride(from: 0, to: byteCount, by: SparsePages.pageBytes) {
            guard let page = pages.page((offset + first) / SparsePages.pageBytes) else { continue }
            let words = page.assumingMemoryBound(to: UInt64.self)
            for index in 0..<(SparsePages.pageBytes / 8) where words[index] != 0 {
                body(first / 8 + index, UInt64(littleEndian: words[index]))
            }
        }
    }

    /// What a sector of the device is, by the tables.
    enum Place: Equatable {
        case file(sector: Int)
        case zeros
        case backing
    }

    func place(ofSector sector: Int) -> Place {
        let deviceOffset = UInt64(sector) * 512
        let index = Int(deviceOffset >> (clusterShift + tableShift))
        guard let table = l1.first(where: { $0.index == index }) else { return .backing }
        let l2Index = Int(deviceOffset >> clusterShift) & (1 << Int(tableShift) - 1)
        switch pages.word(at: table.offset + l2Index * 8) {
        case 0: return .backing
        case 1: return .zeros
        case let offset: return .file(sector: Int((offset + deviceOffset & (1 << clusterShift - 1)) / 512))
        }
    }
}
