import BlockStorage
import Foundation
import IOURing
import QEDFormat
import SystemPackage
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

/// An overlay that gets what lies beneath it, on real files: what it costs, and what it leaves.
@Suite struct CopyUpTests {
    private static let clusterBytes: UInt64 = 1 << 20
    private static let holeBytes = 3 << 20

    /// A raw base that begins and ends with data, has a hole between, and ends within a cluster; and an overlay over it that is
    /// longer. Clusters are larger than a buffer of copies.
    private func makeFiles(in scratch: TemporaryDirectory) throws -> (base: String, overlay: String, content: [UInt8]) {
        var content = (0..<(1 << 20) + 12_288).map { UInt8(truncatingIfNeeded: $0 / 512 &* 7 | 1) }
        content += [UInt8](repeating: 0, count: Self.holeBytes)
        let end = (0..<(2 << 20) + 4608).map { UInt8(truncatingIfNeeded: $0 / 512 &* 11 | 1) }
        let base = scratch.path("base.raw")
        #expect(FileManager.default.createFile(atPath: base, contents: nil))
        let file = try #require(FileHandle(forWritingAtPath: base))
        try file.write(contentsOf: Data(content[..<((1 << 20) + 12_288)]))
        try file.seek(toOffset: UInt64(content.count))
        try file.write(contentsOf: Data(end))
        try file.synchronize()
        try file.close()
        content += end
        let overlay = scratch.path("overlay.qed")
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", "cluster_size=1M", "-b", "base.raw", "-F", "raw", overlay, "16M",
        ])
        content += [UInt8](repeating: 0, count: (16 << 20) - content.count)
        return (base, overlay, content)
    }

    private func run<Value: Sendable>(
        _ engine: LocalEngine, _ body: @escaping @Sendable (EngineQueue<FileStorage>) async throws -> Value
    ) throws -> Value {
        let queue = engine.queue
        return try engine.driver.loop.run({ try await body(queue) }, inline: queue.storageCompleted)
    }

    private func copyAll(_ engine: LocalEngine) throws {
        var position: UInt64? = 0
        while let start = position { position = try run(engine) { try await $0.copyUp(from: start) } }
    }

    @Test("the image alone reads the same, holes are not copied, and nothing is left of the base's name")
    func standsAlone() throws {
        let scratch = try TemporaryDirectory()
        var (base, overlay, content) = try makeFiles(in: scratch)
        let engine = try LocalEngine(path: overlay)
        // Zeros that hide the base's second cluster, and data in its fourth.
        #expect(engine.perform([BlockRequest(.writeZeroes, deviceOffset: 1 << 20, byteCount: 1 << 20)]) == [0])
        content.replaceSubrange((1 << 20)..<(2 << 20), with: [UInt8](repeating: 0, count: 1 << 20))
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 0x77, count: 4096)
        #expect(engine.perform([BlockRequest(.write, deviceOffset: 5 << 20, byteCount: 4096, buffer: buffer)]) == [0])
        content.replaceSubrange((5 << 20)..<(5 << 20) + 4096, with: [UInt8](repeating: 0x77, count: 4096))
        let before = engine.queue.statistics
        try copyAll(engine)
        // Of seven clusters over the base one is zeros, one is written, and two lie over its hole.
        #expect(engine.queue.statistics.filledClusters - before.filledClusters == 3)
        try copyAll(engine)
        #expect(engine.queue.statistics.filledClusters - before.filledClusters == 3)
        try run(engine) { try await $0.forgetBackingFile() }
        try engine.close()
        try FileManager.default.removeItem(atPath: base)
        try require(["qemu-img", "check", "-q", "-f", "qed", overlay])
        #expect(try !Data(contentsOf: URL(fileURLWithPath: overlay)).prefix(4096).contains(Data("base.raw".utf8)))
        let raw = scratch.path("alone.raw")
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", overlay, raw])
        #expect(try Data(contentsOf: URL(fileURLWithPath: raw)) == Data(content))
    }

    @Test("a base that cannot be read ends it, and what could be read stays")
    func unreadableBase() throws {
        let scratch = try TemporaryDirectory()
        let (base, overlay, _) = try makeFiles(in: scratch)
        let engine = try LocalEngine(path: overlay)
        #expect(truncate(base, 5 << 20) == 0)
        #expect(throws: RequestError.self) { try copyAll(engine) }
        #expect(engine.queue.statistics.filledClusters > 0)
        #expect(engine.queue.image.hasBackingFile)
        // Where the image hides what is gone, nobody reads it.
        #expect(engine.perform([BlockRequest(.writeZeroes, deviceOffset: 5 << 20, byteCount: 2 << 20)]) == [0])
        try copyAll(engine)
        try engine.close()
    }
}

extension Data {
    fileprivate func contains(_ other: Data) -> Bool { range(of: other) != nil }
}
