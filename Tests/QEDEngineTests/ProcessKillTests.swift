import BlockStorage
import Foundation
import Platform
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import QEDEngine

/// A process that dies keeps every promise that it made: what it acknowledged is there, though nothing was flushed.
///
/// The engine is abandoned as a kill would leave it: nothing is committed or closed, only the mapped log stays.
@Suite struct ProcessKillTests {
    /// Small clusters and tables: many entries and several tables change.
    private static let geometry = "cluster_size=4096,table_size=2"

    private var boot = BootIdentity(high: 3, low: 4)

    private func session(_ memory: UnsafeMutableRawPointer, _ sizeBytes: Int) -> SessionMemory {
        SessionMemory(
            address: memory, sizeBytes: sizeBytes,
            owner: MappingLog.Owner(
                image: FileIdentity(high: 1, low: 2), boot: boot),
            newSession: .random(in: 1 ... .max))
    }

    @Test(arguments: OracleCase.Base.allCases) func acknowledgedWritesOutliveTheProcess(_ base: OracleCase.Base) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let bytes = 64 << 20
        let content = try makeImage(image, base: base, sizeBytes: bytes, in: scratch)
        let size = MappingLog.sizeBytes(capacity: 4096)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        defer { memory.deallocate() }

        let model = DeviceModel(origins: [0, 40 << 20], windowBytes: 8 << 20, initial: content)
        var replayed = 0
        for life in 0..<6 {
            let engine = try LocalEngine(
                path: image, options: ImageOptions(cacheBytes: 64 << 10, session: session(memory, size)), depth: 32)
            #expect(engine.image.replayRefusal == nil)
            if life > 0 { #expect(engine.image.replayedChanges > 0, "nothing to replay, so this proves nothing") }
            replayed += engine.image.replayedChanges
            let history = RandomHistory(engine: engine, model: model, seed: UInt64(life + 1))
            history.compareAll()
            history.play(rounds: 6)
            // A flush in a batch may come after all its writes, on a busy machine.
            history.flushes = false
            history.play(rounds: 1)
            #expect(history.mismatches == [], "life \(life)")
            engine.abandon()
        }
        #expect(replayed > 100, "the histories left nothing to replay, so this proved nothing")
        let engine = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)))
        let history = RandomHistory(engine: engine, model: model, seed: 99)
        history.compareAll()
        #expect(history.mismatches == [])
        try engine.close()
        try expectCheckClean(image, clusterSizeBytes: 4096)
    }

    /// Without the log the same kill loses what was not flushed: the test above would notice.
    @Test func withoutTheLogUnflushedWritesAreLost() throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let content = try makeImage(image, base: .none, sizeBytes: 64 << 20, in: scratch)
        let model = DeviceModel(origins: [0], windowBytes: 8 << 20, initial: content)
        let engine = try LocalEngine(path: image, depth: 32)
        let history = RandomHistory(engine: engine, model: model, seed: 5)
        history.flushes = false
        history.play(rounds: 1)
        engine.abandon()
        let next = try LocalEngine(path: image)
        let after = RandomHistory(engine: next, model: model, seed: 6)
        after.compareAll()
        #expect(after.mismatches != [])
        try next.close()
    }

    @Test func aLogFromBeforeAnotherProgramsVisitIsRefused() throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let content = try makeImage(image, base: .none, sizeBytes: 64 << 20, in: scratch)
        let size = MappingLog.sizeBytes(capacity: 4096)
        let memory = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0, count: size)
        defer { memory.deallocate() }
        let model = DeviceModel(origins: [0], windowBytes: 8 << 20, initial: content)
        let engine = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)), depth: 32)
        let history = RandomHistory(engine: engine, model: model, seed: 5)
        history.flushes = false
        history.play(rounds: 1)
        engine.abandon()
        try require(["qemu-io", "-f", "qed", image, "-c", "write -P 9 0 1M"])
        let next = try LocalEngine(path: image, options: ImageOptions(session: session(memory, size)))
        #expect(next.image.replayedChanges == 0)
        #expect(next.image.replayRefusal == "another program has opened the image since")
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 1 << 20, alignment: 4096)
        defer { buffer.deallocate() }
        #expect(next.perform([BlockRequest(.read, byteCount: 1 << 20, buffer: buffer)]) == [0])
        #expect(UnsafeRawBufferPointer(start: buffer, count: 1 << 20).allSatisfy { $0 == 9 })
        try next.close()
        // QEMU leaks what was reserved ahead; nothing else may be wrong.
        let check = try run(["qemu-img", "check", "-f", "qed", image])
        #expect(check.status == 0 || check.status == 3, "\(check.output)")
    }

    private func makeImage(
        _ image: String, base: OracleCase.Base, sizeBytes: Int, in scratch: TemporaryDirectory
    ) throws -> (UInt64, Int) -> [UInt8] {
        guard base != .none else {
            try require(["qemu-img", "create", "-q", "-f", "qed", "-o", Self.geometry, image, "\(sizeBytes)"])
            return { _, count in [UInt8](repeating: 0, count: count) }
        }
        let baseBytes = base == .raw ? sizeBytes : 41 << 20 + 1000
        let content = (0..<baseBytes).map { UInt8(truncatingIfNeeded: $0 >> 9 &* 5 &+ 3) }
        try writeFile(scratch.path("base"), content)
        if base == .qed {
            try require(["qemu-img", "convert", "-f", "raw", "-O", "qed", scratch.path("base"), scratch.path("base.qed")])
        }
        let name = base == .qed ? "base.qed" : "base"
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", Self.geometry, "-b", scratch.path(name), "-F",
            base == .qed ? "qed" : "raw", image,
            "\(sizeBytes)",
        ])
        return { origin, count in
            let start = min(Int(origin), baseBytes)
            let covered = Array(content[start..<min(start + count, baseBytes)])
            return covered + [UInt8](repeating: 0, count: count - covered.count)
        }
    }
}
