import QEDEngine
import TestSupport
import Testing

/// What FUA writes and flushes ask of the disk.
@Suite struct DurabilityTests {
    @Test("a FUA write is written once, and synced", arguments: [0, 1 << 20] as [UInt64])
    func writtenOnce(_ deviceOffset: UInt64) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "8M"])
        let engine = try LocalEngine(path: image)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 7, count: 4096)
        // Into a cluster that is there: what is new takes another way.
        #expect(engine.perform([BlockRequest(.write, deviceOffset: 0, byteCount: 4096, buffer: buffer)]) == [0])
        let before = engine.queue.statistics
        let request = BlockRequest(
            .write, deviceOffset: deviceOffset, byteCount: 4096, buffer: buffer, forcesUnitAccess: true)
        #expect(engine.perform([request]) == [0])
        #expect(engine.queue.statistics.dataWrites == before.dataWrites + 1)
        #expect(engine.queue.statistics.syncs > before.syncs)
        try engine.close()
    }

    /// Whoever wrote it may have died before it was durable; this program has read it, and promises it with a flush.
    @Test("the first flush covers what an earlier process has written")
    func firstFlush() throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "8M"])
        let engine = try LocalEngine(path: image)
        #expect(engine.perform([BlockRequest(.flush)]) == [0])
        #expect(engine.queue.statistics.syncs == 1)
        // And the next one has nothing to do.
        #expect(engine.perform([BlockRequest(.flush)]) == [0])
        #expect(engine.queue.statistics.syncs == 1)
        try engine.close()
    }
}
