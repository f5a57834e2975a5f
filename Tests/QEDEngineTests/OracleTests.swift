import BlockStorage
import Foundation
import IOURing
import QEDChain
import QEDEngine
import QEDFormat
import TestSupport
import Testing

/// What a geometry under test is made of.
struct OracleCase: CustomStringConvertible, Sendable {
    enum Base: String, CaseIterable, Sendable { case none, raw, shortRaw, qed }
    var clusterSizeBytes: UInt64
    var tableSizeClusters: UInt64
    var base: Base

    var description: String { "\(clusterSizeBytes >> 10)K/\(tableSizeClusters) base \(base)" }

    /// The geometries that QEMU can open.
    static let all: [OracleCase] = [4 << 10, 64 << 10, 1 << 20, 2 << 20].flatMap { clusterSizeBytes in
        [2, 4, 16].flatMap { tableSize -> [OracleCase] in
            if clusterSizeBytes == 2 << 20 && tableSize > 8 { return [] }
            return Base.allCases.map {
                OracleCase(clusterSizeBytes: UInt64(clusterSizeBytes), tableSizeClusters: UInt64(tableSize), base: $0)
            }
        }
    }
}

/// QEMU as the judge: what we write it reads and finds sound, and what it wrote we read.
@Suite(.serialized) struct OracleTests {
    static let virtualBytes = 96 << 20
    static let windowBytes = 6 << 20

    @Test("what we write, QEMU reads and finds sound", arguments: OracleCase.all)
    func weWriteQEMUReads(_ geometry: OracleCase) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let baseContent = try makeImage(image, geometry, in: scratch)
        let origins: [UInt64] = [0, 40 << 20, UInt64(Self.virtualBytes - Self.windowBytes)]
        let model = DeviceModel(origins: origins, windowBytes: Self.windowBytes, initial: baseContent)
        for pass in 0..<2 {
            // A small cache, so that pages come and go.
            let engine = try LocalEngine(path: image, options: ImageOptions(cacheBytes: 64 << 10), depth: 32)
            let history = RandomHistory(engine: engine, model: model, seed: UInt64(pass + 1))
            history.compareAll()
            history.play(rounds: 40)
            history.compareAll()
            #expect(history.mismatches == [], "seed \(pass + 1)")
            try engine.close()
            try expectCheckClean(image, clusterSizeBytes: geometry.clusterSizeBytes)
            #expect(try headerNeedsCheck(image) == false)
            let raw = scratch.path("copy.raw")
            try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", image, raw])
            let copy = try Data(contentsOf: URL(fileURLWithPath: raw), options: .alwaysMapped)
            #expect(copy.count == Self.virtualBytes)
            for (origin, window) in zip(origins, model.windows) {
                let slice = copy[Int(origin)..<(Int(origin) + Self.windowBytes)]
                let isEqual = slice.withUnsafeBytes { first in window.withUnsafeBytes { first.elementsEqual($0) } }
                #expect(isEqual, "QEMU reads something else at \(origin)")
            }
        }
    }

    /// What can goes straight between file and buffer, the rest through memory that is borrowed for it, at once or later; a
    /// transfer that the file refuses is done again in memory.
    @Test("data in registered buffers", arguments: OracleCase.all.filter { $0.tableSizeClusters == 4 }, [true, false])
    func registeredBuffers(_ geometry: OracleCase, basesTakeThem: Bool) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let baseContent = try makeImage(image, geometry, in: scratch)
        let model = DeviceModel(
            origins: [0, 40 << 20, UInt64(Self.virtualBytes - Self.windowBytes)], windowBytes: Self.windowBytes,
            initial: baseContent)
        let engine = try LocalEngine(
            chain: ImageChain.open(path: image, isReadOnly: false), options: ImageOptions(cacheBytes: 64 << 10), depth: 32,
            largestRequestBytes: 1 << 20
        ) { chain, ring in
            var storages = chain.storages(on: ring)
            if !basesTakeThem { storages.bases = chain.dropFirst().map { PlainBase(file: $0.file.storage(on: ring)) } }
            return storages
        }
        let history = RandomHistory(engine: engine, model: model, seed: 3)
        try history.registerBuffers()
        history.play(rounds: 40)
        history.compareAll()
        #expect(history.mismatches == [])
        let statistics = engine.queue.statistics
        #expect(statistics.registeredTransfers > 100)
        #expect(statistics.borrowedRequests > 50)
        #expect((history.registered?.deferrals ?? 0) > 20)
        try engine.close()
        try expectCheckClean(image, clusterSizeBytes: geometry.clusterSizeBytes)
    }

    @Test("what QEMU wrote, we read", arguments: OracleCase.all)
    func qemuWritesWeRead(_ geometry: OracleCase) throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        let baseContent = try makeImage(image, geometry, in: scratch)
        try require([
            "qemu-io", "-f", "qed", image, "-c", "write -P 17 0 64k", "-c", "write -P 18 1000k 3M", "-c", "write -z 8M 4M",
            "-c", "write -P 19 41943552 512", "-c", "write -P 20 100662784 512",
        ])
        let engine = try LocalEngine(path: image, options: ImageOptions(isReadOnly: true))
        let model = DeviceModel(origins: [0], windowBytes: Self.virtualBytes) { origin, count in
            var bytes = baseContent(origin, count)
            func fill(_ range: Range<Int>, _ value: UInt8) {
                bytes.replaceSubrange(range, with: repeatElement(value, count: range.count))
            }
            fill(0..<(64 << 10), 17)
            fill((1000 << 10)..<((1000 << 10) + (3 << 20)), 18)
            fill((8 << 20)..<(12 << 20), 0)
            fill(41_943_552..<41_944_064, 19)
            fill(100_662_784..<100_663_296, 20)
            return bytes
        }
        let history = RandomHistory(engine: engine, model: model, seed: 1)
        history.compareAll()
        #expect(history.mismatches == [])
        try engine.close()
    }

    /// - Returns: what the device reads as before anything is written to it.
    private func makeImage(
        _ image: String, _ geometry: OracleCase, in scratch: TemporaryDirectory
    ) throws -> (UInt64, Int) -> [UInt8] {
        let options = "cluster_size=\(geometry.clusterSizeBytes),table_size=\(geometry.tableSizeClusters)"
        let base = scratch.path("base")
        func pattern(_ origin: UInt64, _ count: Int) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: count)
            bytes.withUnsafeMutableBytes { memory in
                for position in stride(from: 0, to: count, by: 512) {
                    let value = UInt8(truncatingIfNeeded: ((origin + UInt64(position)) >> 9) &* 7 &+ 1)
                    memset(memory.baseAddress.unsafelyUnwrapped + position, Int32(value), min(512, count - position))
                }
            }
            return bytes
        }
        // Ends in the middle of the second window, and not with a sector.
        let baseBytes: UInt64
        switch geometry.base {
        case .none:
            try require(["qemu-img", "create", "-q", "-f", "qed", "-o", options, image, "\(Self.virtualBytes)"])
            return { _, count in [UInt8](repeating: 0, count: count) }
        case .raw: baseBytes = UInt64(Self.virtualBytes)
        case .shortRaw, .qed: baseBytes = 43 << 20 + 1000
        }
        let content = Data(pattern(0, Int(baseBytes)))
        try content.write(to: URL(fileURLWithPath: base))
        var format = "raw"
        if geometry.base == .qed {
            let qedBase = scratch.path("base.qed")
            // Another geometry than the overlay's.
            try require(["qemu-img", "convert", "-f", "raw", "-O", "qed", "-o", "cluster_size=16384,table_size=4", base, qedBase])
            try FileManager.default.removeItem(atPath: base)
            try FileManager.default.moveItem(atPath: qedBase, toPath: base)
            format = "qed"
        }
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-o", options, "-b", base, "-F", format, image, "\(Self.virtualBytes)",
        ])
        return { origin, count in
            let covered = origin >= baseBytes ? 0 : min(count, Int(baseBytes - origin))
            return pattern(origin, covered) + [UInt8](repeating: 0, count: count - covered)
        }
    }

    private func headerNeedsCheck(_ image: String) throws -> Bool {
        let header = try #require(FileHandle(forReadingAtPath: image)).read(upToCount: 64)
        return try #require(header)[16] & 2 != 0
    }
}

/// A file beneath an image that takes no registered buffers, as one that is far away does not.
private struct PlainBase: BaseStorage {
    let file: FileStorage

    var alignment: StorageAlignment { file.alignment }
    var takesRegisteredBuffers: Bool { false }
    var tellsHolesTruly: Bool { file.tellsHolesTruly }

    func submitRead(into buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64, token: CompletionToken) {
        file.submitRead(into: buffer, byteCount: byteCount, fileOffset: fileOffset, token: token)
    }

    func submit(_ transfer: RegisteredTransfer, token: CompletionToken) {
        preconditionFailure("a base that takes no registered buffers was given one")
    }

    func findData(from fileOffset: UInt64) async -> Range<UInt64>? { await file.findData(from: fileOffset) }

    func pause(nanoseconds: UInt64) async { await file.pause(nanoseconds: nanoseconds) }
}
