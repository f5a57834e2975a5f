import BlockStorage
import Foundation
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import QEDEngine

/// What a write to an overlay costs: a copy where the base has data, nothing where it has a hole.
@Suite struct OverlayWriteTests {
    private static let clusterBytes: UInt64 = 65536
    private static let baseBytes = 64 << 20

    /// A raw base of 64 MiB with `data` in it and holes elsewhere, and an overlay over it.
    private func overlay(_ data: Range<Int>, in scratch: TemporaryDirectory) throws -> String {
        let base = scratch.path("base.raw")
        #expect(FileManager.default.createFile(atPath: base, contents: nil))
        let file = try #require(FileHandle(forWritingAtPath: base))
        try file.truncate(atOffset: UInt64(Self.baseBytes))
        try file.seek(toOffset: UInt64(data.lowerBound))
        try file.write(contentsOf: Data(repeating: 0xba, count: data.count))
        try file.synchronize()
        try file.close()
        let path = scratch.path("overlay.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", base, "-F", "raw", path])
        return path
    }

    /// Writes 4 KiB of 0x77 into each of some clusters, all at once.
    private func write(_ engine: LocalEngine, clusters: Range<UInt64>, at offsetInCluster: UInt64 = 0) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0x77, count: 4096)
        let requests = clusters.map {
            BlockRequest(.write, deviceOffset: $0 * Self.clusterBytes + offsetInCluster, byteCount: 4096, buffer: buffer)
        }
        #expect(engine.perform(requests).allSatisfy { $0 == 0 })
    }

    private func read(_ engine: LocalEngine, at deviceOffset: UInt64, byteCount: Int) -> [UInt8] {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 4096)
        defer { buffer.deallocate() }
        let request = BlockRequest(.read, deviceOffset: deviceOffset, byteCount: UInt64(byteCount), buffer: buffer)
        #expect(engine.perform([request]) == [0])
        return Array(UnsafeRawBufferPointer(start: buffer, count: byteCount))
    }

    @Test("neighbouring clusters are copied with one read and one write for many of them")
    func neighboursShareTheirCopies() throws {
        let scratch = try TemporaryDirectory()
        let engine = try LocalEngine(path: try overlay(0..<Self.baseBytes, in: scratch), depth: 64)
        write(engine, clusters: 0..<1)
        let before = engine.queue.statistics
        write(engine, clusters: 16..<48, at: 8192)
        let after = engine.queue.statistics
        #expect(after.filledClusters - before.filledClusters == 32)
        #expect(after.dataReads - before.dataReads <= 4)
        #expect(after.dataWrites - before.dataWrites <= 4)
        for cluster in UInt64(16)..<48 {
            let content = read(engine, at: cluster * Self.clusterBytes, byteCount: Int(Self.clusterBytes))
            #expect(content[0..<8192].allSatisfy { $0 == 0xba })
            #expect(content[8192..<12288].allSatisfy { $0 == 0x77 })
            #expect(content[12288...].allSatisfy { $0 == 0xba })
        }
        try engine.close()
    }

    @Test("a hole of the base is not copied")
    func holesAreFreshSpace() throws {
        let scratch = try TemporaryDirectory()
        let engine = try LocalEngine(path: try overlay((32 << 20)..<(33 << 20), in: scratch), depth: 64)
        write(engine, clusters: 0..<32)
        write(engine, clusters: 600..<632)
        #expect(engine.queue.statistics.filledClusters == 0)
        #expect(engine.queue.statistics.dataReads == 0)
        // The data begins in the middle of the device: clusters 512 to 527.
        write(engine, clusters: 511..<529)
        #expect(engine.queue.statistics.filledClusters == 16)
        for cluster in [UInt64(3), 511, 512, 527, 528, 601] {
            let content = read(engine, at: cluster * Self.clusterBytes, byteCount: Int(Self.clusterBytes))
            let beneath: UInt8 = (512..<528).contains(cluster) ? 0xba : 0
            #expect(content[0..<4096].allSatisfy { $0 == 0x77 }, "cluster \(cluster)")
            #expect(content[4096...].allSatisfy { $0 == beneath }, "cluster \(cluster)")
        }
        try engine.close()
    }
}
