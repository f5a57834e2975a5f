import Dispatch
import Foundation
import IOURing
import Platform
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import BlockStorage
@testable import QEDChain
@testable import QEDEngine

/// Ranges that are fetched from the bottom of the chain, on real files. That they never go over what is newer is the simulation's
/// to show.
@Suite struct FetchTests {
    private static let clusterBytes = 16384
    private static let clusters = 600
    private let scratch: TemporaryDirectory
    private let base: String
    private let overlay: String
    private let content: [UInt8]

    /// A base with a hole from the 100th cluster to the 500th, of which the last is not whole; and an overlay that is longer.
    init() throws {
        scratch = try TemporaryDirectory()
        (base, overlay) = (scratch.path("base.raw"), scratch.path("overlay.qed"))
        let hole = 100 * Self.clusterBytes..<500 * Self.clusterBytes
        var content = (0..<Self.clusters).flatMap { [UInt8](repeating: UInt8($0 % 251 + 1), count: Self.clusterBytes) }
        content.removeLast(4096)
        content.replaceSubrange(hole, with: [UInt8](repeating: 0, count: hole.count))
        try require(["truncate", "-s", "\(content.count)", base])
        let file = try #require(FileHandle(forWritingAtPath: base))
        try file.write(contentsOf: Data(content[..<hole.lowerBound]))
        try file.seek(toOffset: UInt64(hole.upperBound))
        try file.write(contentsOf: Data(content[hole.upperBound...]))
        try file.close()
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=16k", "-b", "base.raw", "-F", "raw", overlay, "16M",
        ])
        self.content = content + [UInt8](repeating: 0, count: (16 << 20) - content.count)
    }

    private func open() throws -> LocalEngine {
        var options = ImageOptions()
        options.keepsReads = true
        return try LocalEngine(path: overlay, options: options)
    }

    private func piece(
        _ engine: LocalEngine, _ ranges: FetchRanges, goesOn: @escaping @Sendable () -> Bool = { true }
    ) -> FetchedPiece {
        let queue = engine.queue
        return engine.driver.loop.run(
            {
                await withUnsafeContinuation { continuation in
                    let hasBegun = queue.beginOwnWork { queue in
                        continuation.resume(returning: await queue.fetch(ranges, goesOn: goesOn))
                    }
                    #expect(hasBegun)
                }
            }, inline: queue.storageCompleted)
    }

    /// - Returns: how many bytes were fetched, in how many pieces.
    private func fetch(_ engine: LocalEngine, _ ranges: [Range<UInt64>]) throws -> (bytes: UInt64, pieces: Int) {
        var rest = FetchRanges(ranges)
        var (bytes, pieces): (UInt64, Int) = (0, 0)
        while !rest.isAtEnd {
            let piece = piece(engine, rest)
            #expect(piece.failure == nil)
            bytes += piece.fetchedBytes
            pieces += 1
            rest = piece.ranges
        }
        return (bytes, pieces)
    }

    private func read(_ engine: LocalEngine, _ offset: Int, _ count: Int) -> [UInt8]? {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 4096)
        defer { buffer.deallocate() }
        let request = BlockRequest(.read, deviceOffset: UInt64(offset), byteCount: UInt64(count), buffer: buffer)
        guard engine.perform([request]) == [0] else { return nil }
        return Array(UnsafeRawBufferPointer(start: buffer, count: count))
    }

    @Test("a whole disk: in bounded pieces, neighbours with one read; what is newer stays, holes are not fetched")
    func whole() throws {
        let engine = try open()
        var expected = content
        // Zeros that hide data, between clusters that are fetched, and data.
        let zeros = 3 * Self.clusterBytes..<4 * Self.clusterBytes
        #expect(
            engine.perform([BlockRequest(.writeZeroes, deviceOffset: UInt64(zeros.lowerBound), byteCount: UInt64(zeros.count))])
                == [0])
        expected.replaceSubrange(zeros, with: [UInt8](repeating: 0, count: zeros.count))
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0xee, count: 4096)
        let written = 9 * Self.clusterBytes + 4096
        #expect(
            engine.perform([BlockRequest(.write, deviceOffset: UInt64(written), byteCount: 4096, buffer: buffer)]) == [0])
        expected.replaceSubrange(written..<written + 4096, with: [UInt8](repeating: 0xee, count: 4096))
        let before = engine.queue.statistics
        let (bytes, pieces) = try fetch(engine, [0..<16 << 20])
        #expect(bytes == UInt64(198 * Self.clusterBytes - 4096))
        #expect(pieces == 1)
        let after = engine.queue.statistics
        #expect(after.filledClusters - before.filledClusters == 198)
        let reads = after.dataReads - before.dataReads
        #expect(reads <= 29, "\(reads) reads for 200 clusters, of which eight are a part")
        #expect(try fetch(engine, [0..<16 << 20]).bytes == 0)
        #expect(truncate(base, 0) == 0)
        #expect(read(engine, 0, 16 << 20) == expected)
        try engine.close()
        try require(["qemu-img", "check", "-q", "-f", "qed", overlay])
    }

    @Test("ranges of a few sectors, in their order, one of them twice, and behind the base's end")
    func ranges() throws {
        let engine = try open()
        let last = UInt64(Self.clusters - 1) << 14
        let ranges: [Range<UInt64>] = [
            (520 << 14) + 512..<(520 << 14) + 1024, last..<16 << 20, 0..<4096, 8192..<12288, 200 << 14..<201 << 14,
        ]
        #expect(try fetch(engine, ranges).bytes == UInt64(3 * Self.clusterBytes - 4096))
        #expect(engine.queue.statistics.filledClusters == 3)
        try engine.close()
    }

    @Test("a cluster that is made zeros after a part was looked at, and before it is planned, stays zeros")
    func hidden() throws {
        let engine = try open()
        let queue = engine.queue
        // The table's page is in memory then, and the image is not clean any more: a request for zeros waits for nothing.
        let zeros = BlockRequest(
            .writeZeroes, deviceOffset: UInt64(590 * Self.clusterBytes), byteCount: UInt64(Self.clusterBytes))
        #expect(engine.perform([zeros]) == [0])
        // And the base has said where it has data.
        #expect(try fetch(engine, [0..<512]).bytes == UInt64(Self.clusterBytes))
        // It will not say how much room there is before it is to.
        let (holds, mayGoOn) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        queue.tasks.start {
            _ = await BlockingCalls.shared.run {
                holds.signal()
                mayGoOn.wait()
                return 0
            }
        }
        engine.driver.loop.runReady()
        holds.wait()
        nonisolated(unsafe) var fetchedBytes: UInt64?
        let hasBegun = queue.beginOwnWork { fetchedBytes = await $0.fetch(FetchRanges([0..<131_072])).fetchedBytes }
        #expect(hasBegun)
        // It has looked, and waits to hear that.
        engine.driver.loop.runReady()
        let hidden = 3 * Self.clusterBytes..<4 * Self.clusterBytes
        queue.start(
            0, BlockRequest(.writeZeroes, deviceOffset: UInt64(hidden.lowerBound), byteCount: UInt64(hidden.count)))
        engine.driver.loop.runReady()
        #expect(queue.nextFinished()?.result == 0)
        #expect(fetchedBytes == nil)
        mayGoOn.signal()
        while fetchedBytes == nil { engine.turn(waits: true) }
        #expect(fetchedBytes == UInt64(6 * Self.clusterBytes))
        var expected = Array(content[..<131_072])
        expected.replaceSubrange(hidden, with: [UInt8](repeating: 0, count: hidden.count))
        #expect(read(engine, 0, 131_072) == expected)
        try engine.close()
    }

    @Test("it ends where it is not wanted any more, and goes on from there")
    func ended() throws {
        let engine = try open()
        let asked = Atomic<Int>(0)
        let first = piece(engine, FetchRanges([0..<16 << 20])) { asked.add(1, ordering: .relaxed).newValue <= 10 }
        #expect(first.failure == nil && !first.ranges.isAtEnd)
        #expect(first.fetchedBytes > 0 && first.fetchedBytes <= 10 * 8 << 14)
        #expect(engine.queue.isQuiet)
        #expect(try fetch(engine, [0..<16 << 20]).bytes + first.fetchedBytes == UInt64(200 * Self.clusterBytes - 4096))
        try engine.close()
    }

    @Test("what cannot be read of the base ends it with that error, and another one goes on")
    func unreadable() throws {
        let engine = try open()
        #expect(truncate(base, 20 << 14) == 0)
        let piece = piece(engine, FetchRanges([0..<16 << 20]))
        guard case .request(.storage(.ioError))? = piece.failure else {
            Issue.record("\(String(describing: piece.failure))")
            return
        }
        #expect(read(engine, 0, 16 << 14) == Array(content[..<(16 << 14)]))
        // What is given back goes to whoever needs some next.
        #expect(truncate(base, off_t(content.count)) == 0)
        #expect(try fetch(engine, [0..<16 << 20]).bytes > 0)
        #expect(read(engine, 20 << 14, 4096) == [UInt8](repeating: 0, count: 4096))
        try engine.close()
        try require(["qemu-img", "check", "-q", "-f", "qed", "-r", "leaks", overlay])
    }

    @Test("parts are given out in order, in whole clusters, and skipped where nothing is to be fetched")
    func parts() {
        func next(_ ranges: inout FetchRanges, limit: UInt64 = 1000 << 12) -> Range<UInt64>? {
            ranges.next(clusterBytes: 4096, unitBytes: 16384, limit: limit)
        }
        var ranges = FetchRanges([5000..<5001, 100..<100, 40_000..<60_000])
        #expect(ranges.totalBytes == 20_001)
        #expect(next(&ranges) == 4096..<8192)
        #expect(ranges.passedBytes == 1)
        #expect(next(&ranges) == 36_864..<49_152)
        #expect(ranges.passedBytes == 1 + 9152)
        #expect(next(&ranges) == 49_152..<61_440)
        #expect(ranges.isAtEnd && ranges.passedBytes == 20_001 && next(&ranges) == nil)

        ranges = FetchRanges([0..<100_000, 200_000..<200_512])
        #expect(next(&ranges) == 0..<16_384)
        ranges.skip(0..<81_920)
        #expect(next(&ranges) == 81_920..<98_304)
        ranges.skip(0..<81_920)
        ranges.skip(98_304..<400_000)
        #expect(next(&ranges, limit: 200_100) == 196_608..<200_100)
        #expect(ranges.isAtEnd)
        ranges = FetchRanges([0..<100_000])
        #expect(next(&ranges, limit: 0) == nil)
        #expect(FetchRanges([]).isAtEnd)
    }
}
