import Testing

@testable import QEDEngine

/// The pages of a chain: what they are told of the top's changes holds at every moment, and they make room for each other.
@Suite struct ResolvedPagesTests {
    private static let bytesPerPage: UInt64 = 512 << 16

    private func makePages(count: UInt64 = 64, wordLimit: Int = 1 << 22) throws -> ResolvedPages {
        try ResolvedPages(
            clusterShift: 16, diskSizeBytes: count * ResolvedPagesTests.bytesPerPage, budgetBytes: 16 << 12,
            wordLimit: wordLimit)
    }

    private func offset(_ page: UInt64, _ index: UInt64 = 0) -> UInt64 { page * ResolvedPagesTests.bytesPerPage + index << 16 }

    private func place(_ layer: Int, _ cluster: UInt64) -> ResolvedEntry {
        ResolvedEntry(layerNumber: layer, fileOffset: cluster << 16)
    }

    private func begin(_ pages: ResolvedPages, _ page: Int) throws -> Int {
        guard case .make(let slot) = pages.begin(page) else { throw NotToBeMade(page: page) }
        return slot
    }

    private struct NotToBeMade: Error { var page: Int }

    private func make(_ pages: ResolvedPages, _ page: Int, _ entry: ResolvedEntry) throws {
        let slot = try begin(pages, page)
        pages.merge(slot, sizeBytes: .max) { _ in entry }
        #expect(pages.end(slot, succeeded: true).isEmpty)
    }

    @Test("what changes while a page is made is newer than what was read")
    func changeWhileMade() throws {
        let pages = try makePages()
        let slot = try begin(pages, 3)
        pages.set(place(2, 9), deviceOffset: offset(3, 5), byteCount: 1 << 16)
        #expect(pages.lookup.entry(at: offset(3, 5)) == .unknown, "a page that is not all there")
        pages.merge(slot, sizeBytes: .max) { $0 == offset(3, 7) ? .unknown : .zeros }
        pages.set(place(2, 10), deviceOffset: offset(3, 6), byteCount: 1 << 16)
        #expect(!pages.isComplete(slot))
        pages.merge(slot, sizeBytes: .max) { _ in place(1, 4) }
        _ = pages.end(slot, succeeded: true)
        #expect(pages.lookup.entry(at: offset(3, 4) + 512) == .zeros)
        #expect(pages.lookup.entry(at: offset(3, 5)) == place(2, 9))
        #expect(pages.lookup.entry(at: offset(3, 6)) == place(2, 10))
        #expect(pages.lookup.entry(at: offset(3, 7)) == place(1, 4))
        pages.set(.zeros, deviceOffset: offset(3, 7), byteCount: 1 << 16)
        #expect(pages.lookup.entry(at: offset(3, 7)) == .zeros)
    }

    @Test("a cluster of the top may be as large as several pages, and go beyond the disk")
    func largeCluster() throws {
        let pages = try makePages(count: 3)
        for page in 0..<3 { try make(pages, page, .zeros) }
        pages.set(place(7, 1000), deviceOffset: offset(1), byteCount: 4 * ResolvedPagesTests.bytesPerPage)
        #expect(pages.lookup.entry(at: offset(0, 511)) == .zeros)
        #expect(pages.lookup.entry(at: offset(1, 1)) == place(7, 1001))
        #expect(pages.lookup.entry(at: offset(2, 511)) == place(7, 1000 + 1023))
    }

    @Test("pages make room; what could not be made is not there")
    func eviction() throws {
        let pages = try makePages()
        for page in 0..<17 { try make(pages, page, place(1, UInt64(page) + 1)) }
        let found = (0..<17 as Range<UInt64>).filter { pages.lookup.entry(at: offset($0)) != .unknown }
        #expect(found.count == 16 && found.contains(16))
        #expect(pages.use == PageUse(pages: 16, pageLimit: 16, evictions: 1))
        for page in found { #expect(pages.lookup.entry(at: offset(page, 3)) == place(1, page + 1)) }
        let slot = try begin(pages, 40)
        #expect(pages.end(slot, succeeded: false).isEmpty)
        #expect(pages.lookup.entry(at: offset(40)) == .unknown)
        #expect(pages.use == PageUse(pages: 15, pageLimit: 16, evictions: 2))
        _ = try begin(pages, 40)
    }

    @Test("pages for which the directory has one place take it from each other")
    func onePlaceForSeveral() throws {
        let pages = try makePages(wordLimit: 4)
        try make(pages, 1, place(1, 11))
        try make(pages, 2, place(1, 22))
        try make(pages, 5, place(1, 55))
        #expect(pages.lookup.entry(at: offset(1)) == .unknown)
        #expect(pages.lookup.entry(at: offset(2)) == place(1, 22))
        #expect(pages.lookup.entry(at: offset(5)) == place(1, 55))
        // A page that is not there is told nothing, and nor is the one that has its place.
        pages.set(place(2, 99), deviceOffset: offset(1), byteCount: 1 << 16)
        #expect(pages.lookup.entry(at: offset(5)) == place(1, 55))
        _ = try begin(pages, 9)
        guard case .waitForPlace = pages.begin(5) else {
            Issue.record("a page takes the place of one that is being made")
            return
        }
        guard case .wait(let slot) = pages.begin(9) else {
            Issue.record("a page is made twice")
            return
        }
        #expect(!pages.isMade(slot, page: 5) && pages.isMade(slot, page: 9), "one would wait for another page's end")
    }

    @Test("the directory of the largest disk is bounded")
    func largestDisk() throws {
        let pages = try ResolvedPages(clusterShift: 12, diskSizeBytes: 1 << 62, budgetBytes: 0, wordLimit: 1 << 22)
        let last: UInt64 = (1 << 62) - 4096
        let slot = try begin(pages, pages.lookup.page(of: last))
        pages.merge(slot, sizeBytes: .max) { _ in ResolvedEntry(layerNumber: 4000, fileOffset: 1 << 62) }
        _ = pages.end(slot, succeeded: true)
        #expect(pages.lookup.entry(at: last).layerNumber == 4000)
        #expect(pages.lookup.entry(at: last).fileOffset == 1 << 62)
        #expect(pages.lookup.entry(at: last - (1 << 33)) == .unknown)
    }
}
