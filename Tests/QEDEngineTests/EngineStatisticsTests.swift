import BlockStorage
import QEDChain
import TestSupport
import Testing

@testable import QEDEngine

/// What is told of allocations, of pages that were not in memory, and of commits.
@Suite struct EngineStatisticsTests {
    /// Clusters of 4 KiB: a page of tables is for 2 MiB, and a table has four.
    private static let clusterBytes = 4096
    private static let bytesPerPage = 512 * clusterBytes
    private static let pageCount = 20

    private func perform(
        _ engine: LocalEngine, _ operation: BlockOperation, at offsets: [Int], byteCount: Int = 4096
    ) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 9, count: byteCount)
        let requests = offsets.map {
            BlockRequest(operation, deviceOffset: UInt64($0), byteCount: UInt64(byteCount), buffer: buffer)
        }
        #expect(engine.perform(requests).allSatisfy { $0 == 0 })
    }

    /// An image that has one cluster in each page of its tables: the first.
    private func makeImage(in scratch: TemporaryDirectory) throws -> String {
        let path = scratch.path("image.qed")
        let sizeBytes = Self.pageCount * Self.bytesPerPage
        try require(["qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=4096", path, "\(sizeBytes)"])
        let engine = try LocalEngine(path: path)
        perform(engine, .write, at: (0..<Self.pageCount).map { $0 * Self.bytesPerPage })
        let figures = engine.queue.statistics
        // Nothing was read: the pages of new tables are zeros.
        #expect(figures.allocatedClusters == 20 && figures.allocatedTables == 5)
        #expect(figures.allocatedBytes == UInt64((20 + 5 * 4) * Self.clusterBytes))
        #expect(figures.pageLoads == 0 && figures.pageMisses == 0)
        let use = engine.queue.cacheUse
        #expect(use.l2 == PageUse(pages: 20, pageLimit: 8192, evictions: 0) && use.chain == nil)
        #expect(use.l2.bytes == 20 * 4096 && use.l2.budgetBytes == 32 << 20)
        try engine.close()
        return path
    }

    @Test("clusters and tables are counted when they are new, and not again")
    func freshClusters() throws {
        try withSmallImage { engine, _ in
            perform(engine, .write, at: [0, 1 << 16, 2 << 16])
            let first = engine.queue.statistics
            #expect(first.allocatedClusters == 3 && first.allocatedTables == 1)
            #expect(first.allocatedBytes == (3 + 4) << 16)
            perform(engine, .write, at: [4096, 1 << 16])
            perform(engine, .read, at: [0, 5 << 16])
            #expect(engine.queue.statistics.allocatedBytes == first.allocatedBytes)
            // Two that are new, in one request.
            perform(engine, .write, at: [(4 << 16) - 4096], byteCount: 8192)
            #expect(engine.queue.statistics.allocatedClusters == 5)
        }
    }

    @Test("a copy fills a cluster, which counts as allocated")
    func filledClusters() throws {
        try withSmallImage(baseBytes: 1 << 20) { engine, _ in
            perform(engine, .write, at: [4096])
            perform(engine, .write, at: [2 << 16], byteCount: 1 << 16)
            perform(engine, .write, at: [2 << 20])
            let figures = engine.queue.statistics
            #expect(figures.filledClusters == 2 && figures.allocatedClusters == 3 && figures.allocatedTables == 1)
            #expect(figures.allocatedBytes == (3 + 4) << 16)
        }
    }

    @Test("a request misses once, whoever loads the page, and however many it needs")
    func misses() throws {
        let scratch = try TemporaryDirectory()
        let engine = try LocalEngine(path: try makeImage(in: scratch), options: ImageOptions(isReadOnly: true))
        perform(engine, .read, at: [0, 4096])
        #expect(engine.queue.statistics.pageLoads == 1 && engine.queue.statistics.pageMisses == 2)
        perform(engine, .read, at: [0, 4096, 8192])
        #expect(engine.queue.statistics.pageLoads == 1 && engine.queue.statistics.pageMisses == 2)
        perform(engine, .read, at: [2 * Self.bytesPerPage - 4096], byteCount: 8192)
        #expect(engine.queue.statistics.pageLoads == 3 && engine.queue.statistics.pageMisses == 3)
        #expect(engine.queue.cacheUse.l2.pages == 3)
        try engine.close()
    }

    @Test("only reads and writes are hits or misses")
    func otherRequests() throws {
        let scratch = try TemporaryDirectory()
        let engine = try LocalEngine(path: try makeImage(in: scratch))
        #expect(engine.perform([BlockRequest(.writeZeroes, deviceOffset: 0, byteCount: 4096)]) == [0])
        #expect(engine.queue.statistics.pageLoads == 1 && engine.queue.statistics.pageMisses == 0)
        perform(engine, .write, at: [Self.bytesPerPage + 4096])
        #expect(engine.queue.statistics.pageLoads == 2 && engine.queue.statistics.pageMisses == 1)
        try engine.close()
    }

    @Test("pages that make room for others are counted")
    func evictions() throws {
        let scratch = try TemporaryDirectory()
        let engine = try LocalEngine(
            path: try makeImage(in: scratch), options: ImageOptions(isReadOnly: true, cacheBytes: 1))
        for page in 0..<Self.pageCount { perform(engine, .read, at: [page * Self.bytesPerPage]) }
        #expect(engine.queue.statistics.pageLoads == 20 && engine.queue.statistics.pageMisses == 20)
        #expect(engine.queue.cacheUse.l2 == PageUse(pages: 16, pageLimit: 16, evictions: 4))
        try engine.close()
    }

    @Test("each commit and each sync has its time")
    func commitTimes() throws {
        try withSmallImage { engine, _ in
            #expect(engine.queue.statistics.commitTimes.count == 0)
            perform(engine, .write, at: [0])
            for _ in 0..<2 {
                #expect(engine.perform([BlockRequest(.flush)]) == [0])
                let figures = engine.queue.statistics
                // The second flush has nothing to do.
                #expect(figures.commits == 1 && figures.commitTimes.count == 1)
                #expect(figures.syncTimes.count == figures.syncs && figures.syncs > 0)
                let longest = figures.commitTimes.longestNanoseconds
                #expect(longest > 0 && longest == figures.commitTimes.totalNanoseconds)
            }
            #expect(engine.queue.statistics.l2PageWrites == 1 && engine.queue.statistics.l2EntriesWritten == 1)
        }
    }
}
