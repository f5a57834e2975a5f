import QEDChain
import QEDEngine
import Testing

/// What FUA writes and flushes ask of the disk.
@Suite struct DurabilityTests {
    @Test("a FUA write is written once, and synced", arguments: [0, 1 << 20] as [UInt64])
    func writtenOnce(_ deviceOffset: UInt64) throws {
        try withSmallImage { engine, buffer in
            // Into a cluster that is there: what is new takes another way.
            #expect(engine.perform([BlockRequest(.write, deviceOffset: 0, byteCount: 4096, buffer: buffer)]) == [0])
            let before = engine.queue.statistics
            let request = BlockRequest(
                .write, deviceOffset: deviceOffset, byteCount: 4096, buffer: buffer, forcesUnitAccess: true)
            #expect(engine.perform([request]) == [0])
            #expect(engine.queue.statistics.dataWrites == before.dataWrites + 1)
            #expect(engine.queue.statistics.syncs > before.syncs)
        }
    }

    /// Whoever wrote it may have died before it was durable; this program has read it, and promises it with a flush.
    @Test("the first flush covers what an earlier process has written")
    func firstFlush() throws {
        try withSmallImage { engine, _ in
            #expect(engine.perform([BlockRequest(.flush)]) == [0])
            #expect(engine.queue.statistics.syncs == 1)
            // And the next one has nothing to do.
            #expect(engine.perform([BlockRequest(.flush)]) == [0])
            #expect(engine.queue.statistics.syncs == 1)
        }
    }
}
