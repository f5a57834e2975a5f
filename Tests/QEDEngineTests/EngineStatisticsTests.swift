import BlockStorage
import QEDChain
import Testing

@testable import QEDEngine

/// What is told of allocations, and of commits.
@Suite struct EngineStatisticsTests {
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
