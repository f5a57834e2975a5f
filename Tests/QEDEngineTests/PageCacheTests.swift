import QEDFormat
import Testing

@testable import QEDEngine

/// What goes to disk of a page is its sealed snapshot; what stays in memory is what cannot be lost.
@Suite struct PageCacheTests {
    /// An image layer of one L2 table, all of whose pages are empty.
    private func makeTables(_ cache: inout PageCache) throws -> ImageTables {
        let geometry = try QEDGeometry(clusterSizeBytes: 65536, tableSizeClusters: 4)
        let header = try QEDHeader(newImageOfSizeBytes: 2 << 30, geometry: geometry)
        let layer = ImageTables(header: header, fileSizeBytes: 10 << 20, l1: [0], cache: cache)
        cache.addTable(0, fileOffset: 5 << 16, to: layer)
        return layer
    }

    private func takeSlot(_ cache: inout PageCache, _ layer: ImageTables) throws -> Int {
        let slot = cache.takeSlot(in: layer)
        return try #require(slot)
    }

    private func expectDirty(
        _ cache: inout PageCache, _ slots: [Int], sourceLocation: SourceLocation = #_sourceLocation
    ) {
        cache.beginCommit()
        #expect((0..<cache.unwrittenCount).map { cache.unwrittenPage($0) } == slots, sourceLocation: sourceLocation)
    }

    private func entry(_ index: Int, of bytes: UnsafeMutableRawPointer) -> UInt64 {
        UInt64(littleEndian: bytes.load(fromByteOffset: index * 8, as: UInt64.self))
    }

    @Test func anUnsealedEntryGoesOutWithItsOldValue() throws {
        var cache = try PageCache(budgetBytes: 64 << 10)
        let layer = try makeTables(&cache)
        let slot = try takeSlot(&cache, layer)
        cache.addEmptyPage(slot, page: 0, in: layer)
        let snapshot = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { snapshot.deallocate() }

        cache.setEntry(slot, index: 3, to: 0x100000, in: layer, sealedBySync: nil)
        cache.setEntry(slot, index: 4, to: 0x110000, in: layer, sealedBySync: 7)
        // Lookups see both at once.
        #expect(layer.lookup.entry(at: 3 << 16) == 0x100000)
        #expect(layer.lookup.entry(at: 4 << 16) == 0x110000)

        expectDirty(&cache, [slot])
        cache.snapshot(slot, completedSync: 6, into: snapshot)
        #expect(entry(3, of: snapshot) == 0x100000)
        #expect(entry(4, of: snapshot) == 0)
        cache.snapshotsWritten(1)
        // It is dirty still: the entry has not been written.
        expectDirty(&cache, [slot])
        cache.snapshot(slot, completedSync: 7, into: snapshot)
        #expect(entry(4, of: snapshot) == 0x110000)
        cache.snapshotsWritten(1)
        expectDirty(&cache, [])
    }

    @Test func anEntryThatChangedTwiceGoesOutAsItWasFirst() throws {
        var cache = try PageCache(budgetBytes: 64 << 10)
        let layer = try makeTables(&cache)
        let slot = try takeSlot(&cache, layer)
        cache.addEmptyPage(slot, page: 0, in: layer)
        let snapshot = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { snapshot.deallocate() }
        cache.setEntry(slot, index: 9, to: 1, in: layer, sealedBySync: 3)
        cache.setEntry(slot, index: 9, to: 0x120000, in: layer, sealedBySync: 5)
        cache.beginCommit()
        cache.snapshot(slot, completedSync: 2, into: snapshot)
        #expect(entry(9, of: snapshot) == 0)
        cache.snapshotsWritten(1)
        cache.beginCommit()
        cache.snapshot(slot, completedSync: 3, into: snapshot)
        #expect(entry(9, of: snapshot) == 1)
    }

    @Test func dirtyPinnedAndWrittenPagesAreNotEvicted() throws {
        var cache = try PageCache(budgetBytes: 64 << 10)
        let layer = try makeTables(&cache)
        let slotCount = cache.slotCount
        #expect(slotCount == 16)
        var slots: [Int] = []
        for page in 0..<16 {
            let slot = try takeSlot(&cache, layer)
            cache.addEmptyPage(slot, page: page, in: layer)
            slots.append(slot)
        }
        for slot in slots.dropFirst(2) { cache.setEntry(slot, index: 0, to: 1, in: layer, sealedBySync: nil) }
        cache[slots[0]].pinCount = 1
        let victim = try takeSlot(&cache, layer)
        #expect(victim == slots[1])
        let again = try takeSlot(&cache, layer)
        #expect(again == victim, "it is free, and the only one")
        let use = cache.use
        #expect(use == PageUse(pages: 15, pageLimit: 16, evictions: 1))
        cache.beginLoading(again, page: 1, in: layer)
        let whileLoading = cache.use.pages
        _ = cache.endLoading(again, in: layer, succeeded: false, isCareful: false)
        let afterFailure = cache.use.pages
        #expect(whileLoading == 16 && afterFailure == 15)
        // The evicted page has to be read again: it is not one of zeros.
        #expect(layer.lookup.entry(at: layer.geometry.deviceOffset(ofL2Page: 1)) == PageLookup.miss)
        #expect(layer.lookup.entry(at: layer.geometry.deviceOffset(ofL2Page: 2)) == 1)
    }

    /// Its pages are in memory all the same, for those who hold the lock.
    @Test func aTableThatGetsNoPageWordsIsMissedByLookups() throws {
        var cache = try PageCache(budgetBytes: 64 << 10, pageWordLimit: 63)
        let layer = try makeTables(&cache)
        #expect(layer.geometry.pagesPerTable == 64)
        let slot = try takeSlot(&cache, layer)
        cache.beginLoading(slot, page: 5, in: layer)
        cache.values(ofSlot: slot)[2] = (7 << 16 as UInt64).littleEndian
        _ = cache.endLoading(slot, in: layer, succeeded: true, isCareful: false)
        #expect(layer.lookup.entry(at: layer.geometry.deviceOffset(ofL2Page: 5)) == PageLookup.miss)
        let found = cache.slot(ofPage: 5, in: layer)
        #expect(found == slot)
        let absent = cache.word(ofPage: 6, in: layer)
        #expect(absent == .absent)
        for page in 6..<(6 + cache.slotCount) {
            let next = try takeSlot(&cache, layer)
            cache.beginLoading(next, page: page, in: layer)
            _ = cache.endLoading(next, in: layer, succeeded: true, isCareful: false)
        }
        let evicted = cache.word(ofPage: 5, in: layer)
        #expect(evicted == .absent)
    }

    @Test func aPageThatCouldNotBeWrittenStaysDirty() throws {
        var cache = try PageCache(budgetBytes: 64 << 10)
        let layer = try makeTables(&cache)
        let slot = try takeSlot(&cache, layer)
        cache.addEmptyPage(slot, page: 0, in: layer)
        let snapshot = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { snapshot.deallocate() }
        cache.setEntry(slot, index: 1, to: 1, in: layer, sealedBySync: nil)
        cache.beginCommit()
        cache.snapshot(slot, completedSync: 0, into: snapshot)
        cache.commitFailed()
        expectDirty(&cache, [slot])
    }
}
