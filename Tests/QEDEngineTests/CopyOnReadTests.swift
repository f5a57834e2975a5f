import Foundation
import SystemPackage
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

/// An overlay that keeps what is read of its base, on real files: what is kept, what is not, and what it is worth. That it never
/// goes over what is newer is the simulation's to show.
@Suite struct CopyOnReadTests {
    private static let clusterBytes = 65536
    private let scratch: TemporaryDirectory
    private let base: String
    private let overlay: String
    private let content: [UInt8]
    private let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)

    /// A base of ten clusters, of which the fourth and fifth are a hole and the last is not whole; and an overlay that is longer.
    init() throws {
        scratch = try TemporaryDirectory()
        (base, overlay) = (scratch.path("base.raw"), scratch.path("overlay.qed"))
        var content = (0..<10 * Self.clusterBytes - 4096).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 | 1) }
        content.replaceSubrange(
            3 * Self.clusterBytes..<5 * Self.clusterBytes, with: [UInt8](repeating: 0, count: 2 * Self.clusterBytes))
        try require(["truncate", "-s", "\(content.count)", base])
        let file = try #require(FileHandle(forWritingAtPath: base))
        try file.write(contentsOf: Data(content[..<(3 * Self.clusterBytes)]))
        try file.seek(toOffset: UInt64(5 * Self.clusterBytes))
        try file.write(contentsOf: Data(content[(5 * Self.clusterBytes)...]))
        try file.close()
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", overlay, "1M"])
        self.content = content + [UInt8](repeating: 0, count: (1 << 20) - content.count)
    }

    private func open() throws -> LocalEngine {
        var options = ImageOptions()
        options.keepsReads = true
        return try LocalEngine(path: overlay, options: options)
    }

    private func read(_ engine: LocalEngine, _ offset: Int, _ count: Int) -> [UInt8]? {
        let request = BlockRequest(.read, deviceOffset: UInt64(offset), byteCount: UInt64(count), buffer: buffer)
        guard engine.perform([request]) == [0] else { return nil }
        return Array(UnsafeRawBufferPointer(start: buffer, count: count))
    }

    private func makeZeros(_ engine: LocalEngine, cluster: Int) -> Bool {
        let zeros = BlockRequest(
            .writeZeroes, deviceOffset: UInt64(cluster * Self.clusterBytes), byteCount: UInt64(Self.clusterBytes))
        return engine.perform([zeros]) == [0]
    }

    @Test("what was read is read from the base once, in whole clusters; holes, zeros and what is newer are not")
    func kept() throws {
        defer { buffer.deallocate() }
        let engine = try open()
        func kept() -> UInt64 { engine.queue.statistics.filledClusters }
        #expect(read(engine, 8192, 512) == Array(content[8192..<8704]))
        #expect(kept() == 1)
        // Across the end of what is kept, a hole, and data again.
        #expect(read(engine, 0, 6 * Self.clusterBytes) == Array(content[..<(6 * Self.clusterBytes)]))
        #expect(kept() == 4)
        // Made zeros, it is not fetched; nor is what is written.
        #expect(makeZeros(engine, cluster: 6))
        #expect(read(engine, 6 * Self.clusterBytes, 4096) == [UInt8](repeating: 0, count: 4096))
        #expect(kept() == 4)
        // The base's end is not that of a cluster, and nothing lies behind it.
        #expect(
            read(engine, 9 * Self.clusterBytes, Self.clusterBytes) == Array(content[(9 * Self.clusterBytes)...].prefix(65536)))
        #expect(read(engine, 12 * Self.clusterBytes, 4096) == [UInt8](repeating: 0, count: 4096))
        #expect(kept() == 5)
        // The base is not asked any more.
        #expect(truncate(base, 0) == 0)
        #expect(read(engine, 0, 6 * Self.clusterBytes) == Array(content[..<(6 * Self.clusterBytes)]))
        try engine.close()
        try require(["qemu-img", "check", "-q", "-f", "qed", overlay])
    }

    @Test("neighbours that are asked for whole come together; what the image has in between stays")
    func together() throws {
        defer { buffer.deallocate() }
        let engine = try open()
        let start = engine.queue.statistics
        #expect(read(engine, 0, 3 * Self.clusterBytes) == Array(content[..<(3 * Self.clusterBytes)]))
        #expect(engine.queue.statistics.filledClusters == 3)
        #expect(engine.queue.statistics.dataReads - start.dataReads == 1)
        // Parts of two, as well.
        #expect(
            read(engine, 6 * Self.clusterBytes - 8192, 12288) == Array(content[(6 * Self.clusterBytes - 8192)...].prefix(12288)))
        #expect(engine.queue.statistics.filledClusters == 5)
        #expect(engine.queue.statistics.dataReads - start.dataReads == 2)
        #expect(makeZeros(engine, cluster: 7))
        var now = content
        now.replaceSubrange(
            7 * Self.clusterBytes..<8 * Self.clusterBytes, with: [UInt8](repeating: 0, count: Self.clusterBytes))
        for _ in 0..<2 {
            #expect(read(engine, 4096, (1 << 20) - 8192) == Array(now[4096..<((1 << 20) - 4096)]))
            #expect(engine.queue.statistics.filledClusters == 7)
        }
        try engine.close()
        try require(["qemu-img", "check", "-q", "-f", "qed", overlay])
    }

    @Test("what cannot be read of the base fails the read, and is fetched when it is there again")
    func unreadable() throws {
        defer { buffer.deallocate() }
        let engine = try open()
        #expect(truncate(base, 7 << 16) == 0)
        for _ in 0..<50 { #expect(read(engine, 7 * Self.clusterBytes, 4096) == nil) }
        #expect(engine.queue.statistics.filledClusters == 0)
        #expect(truncate(base, 10 << 16) == 0)
        #expect(read(engine, 7 * Self.clusterBytes, 4096) == [UInt8](repeating: 0, count: 4096))
        try engine.close()
    }

    @Test("who reads a cluster that somebody else fetches has it from the image")
    func once() throws {
        defer { buffer.deallocate() }
        let engine = try open()
        let requests = (0..<16).map {
            BlockRequest(.read, deviceOffset: UInt64($0 * 4096), byteCount: 4096, buffer: buffer + $0 * 4096)
        }
        #expect(engine.perform(requests) == [Int32](repeating: 0, count: 16))
        #expect(Array(UnsafeRawBufferPointer(start: buffer, count: 65536)) == Array(content[..<65536]))
        #expect(engine.queue.statistics.filledClusters == 1)
        try engine.close()
    }

    @Test("an image that is only read keeps nothing")
    func readOnly() throws {
        defer { buffer.deallocate() }
        var options = ImageOptions(isReadOnly: true)
        options.keepsReads = true
        let engine = try LocalEngine(path: overlay, options: options)
        #expect(read(engine, 0, 4096) == Array(content[..<4096]))
        #expect(engine.queue.statistics.filledClusters == 0)
        try engine.close()
    }
}
