import BlockStorage
import Foundation
import IOURing
import QEDChain
import QEDFormat
import Simulation
import TestSupport
import Testing

@testable import QEDEngine

/// Several queues on one image, each on a thread of its own, at each other's clusters.
@Suite struct SeveralQueuesTests {
    /// Every thread owns every fourth block of 4 KiB, so that each cluster belongs to all of them: they allocate, fill and
    /// zero it together, and flush meanwhile. What a thread wrote to its blocks it must read, at once and at the end.
    @Test(arguments: OracleCase.Base.allCases) func queuesShareClusters(_ base: OracleCase.Base) throws {
        let scratch = try TemporaryDirectory()
        let path = scratch.path("image.qed")
        let sizeBytes: UInt64 = 48 << 20
        try makeImage(path, base, sizeBytes: sizeBytes, in: scratch)
        let threadCount = 4
        let chain = try ImageChain.open(path: path, isReadOnly: false)
        let image = try onLoop { loop in
            let storages = chain.storages(on: loop.ring)
            return try loop.run { () throws(ImageOpenError) in
                try await Image.open(
                    chain: chain.map(\.layer), storages: storages, options: ImageOptions(cacheBytes: 64 << 10))
            }
        }
        let workers = (0..<threadCount).map { QueueWorker(image: image, chain: chain, number: $0, of: threadCount) }
        let threads = workers.map { worker in
            let thread = Thread { worker.run() }
            thread.stackSize = 8 << 20
            thread.start()
            return thread
        }
        for worker in workers { worker.done.wait() }
        _ = threads
        for worker in workers { #expect(worker.failures == [], "queue \(worker.number)") }

        try onLoop { loop in
            let driver = EngineDriver(
                image: image, storages: chain.storages(on: loop.ring), depth: 1,
                largestRequestBytes: 1 << 20, on: loop)
            try driver.close()
        }
        for file in chain { file.file.releaseLock() }
        try expectCheckClean(path, clusterSizeBytes: 65536)
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", path, scratch.path("copy")])
        let copy = try readFile(scratch.path("copy"))
        for worker in workers { #expect(worker.differences(from: copy) == [], "queue \(worker.number)") }
    }

    private func onLoop<Value>(_ body: (RingLoop) throws -> Value) throws -> Value {
        let loop = try RingLoop(entries: 128, completionEntries: 512)
        defer { loop.close() }
        return try body(loop)
    }

    private func makeImage(
        _ path: String, _ base: OracleCase.Base, sizeBytes: UInt64, in scratch: TemporaryDirectory
    ) throws {
        guard base != .none else {
            try require(["qemu-img", "create", "-q", "-f", "qed", path, "\(sizeBytes)"])
            return
        }
        let baseBytes = base == .raw ? Int(sizeBytes) : 30 << 20 + 1000
        try writeFile(scratch.path("base"), [UInt8](repeating: QueueWorker.baseByte, count: baseBytes))
        var name = "base"
        if base == .qed {
            name = "base.qed"
            try require(["qemu-img", "convert", "-O", "qed", scratch.path("base"), scratch.path(name)])
        }
        try require([
            "qemu-img", "create", "-q", "-f", "qed", "-b", scratch.path(name), "-F", base == .qed ? "qed" : "raw", path,
            "\(sizeBytes)",
        ])
    }
}

/// One queue's thread and what it knows of its own blocks.
private final class QueueWorker: @unchecked Sendable {
    static let baseByte: UInt8 = 0xB5
    private static let blockBytes = 4096
    private static let depth = 16

    let number: Int
    let done = DispatchSemaphore(value: 0)
    private let image: Image
    private let chain: [LayerFile]
    private let count: Int
    /// By block of this thread: the byte that fills it, or nil while it has not been written.
    private var written: [UInt8?]
    private(set) var failures: [String] = []

    init(image: Image, chain: [LayerFile], number: Int, of count: Int) {
        self.image = image
        self.chain = chain
        self.number = number
        self.count = count
        written = Array(repeating: nil, count: Int(image.sizeBytes) / QueueWorker.blockBytes / count)
    }

    private func deviceOffset(_ block: Int) -> UInt64 { UInt64((block * count + number) * QueueWorker.blockBytes) }

    func run() {
        defer { done.signal() }
        do {
            let loop = try RingLoop(entries: 256, completionEntries: 1024)
            let driver = EngineDriver(
                image: image, storages: chain.storages(on: loop.ring), depth: QueueWorker.depth,
                largestRequestBytes: 1 << 20, on: loop)
            work(driver)
            driver.stop()
            loop.close()
        } catch {
            failures.append("\(error)")
        }
    }

    private func work(_ driver: EngineDriver<FileStorage, RingLoop>) {
        let queue = driver.queue
        var random = SeededRandom(seed: UInt64(number + 1))
        let memory = UnsafeMutableRawPointer.allocate(
            byteCount: QueueWorker.depth * QueueWorker.blockBytes, alignment: 4096)
        defer { memory.deallocate() }
        var free = Array(0..<QueueWorker.depth)
        var underWay: [Int: (block: Int, operation: QEDEngine.BlockOperation, byte: UInt8)] = [:]
        var busy: Set<Int> = []
        var remaining = 4000
        while remaining > 0 || !underWay.isEmpty {
            while remaining > 0, let slot = free.popLast() {
                remaining -= 1
                let block = Int.random(in: 0..<written.count, using: &random)
                let buffer = memory + slot * QueueWorker.blockBytes
                let choice = Int.random(in: 0..<100, using: &random)
                if choice < 4 {
                    underWay[slot] = (-1, .flush, 0)
                    queue.start(slot, BlockRequest(.flush))
                    continue
                }
                guard busy.insert(block).inserted else {
                    free.append(slot)
                    continue
                }
                var request = BlockRequest(
                    .read, deviceOffset: deviceOffset(block), byteCount: UInt64(QueueWorker.blockBytes), buffer: buffer)
                let byte = UInt8.random(in: 1...255, using: &random)
                if choice < 55 {
                    request.operation = .write
                    request.forcesUnitAccess = choice < 6
                    memset(buffer, Int32(byte), QueueWorker.blockBytes)
                } else if choice < 62 {
                    request.operation = .writeZeroes
                    request.buffer = nil
                } else {
                    memset(buffer, 0xEE, QueueWorker.blockBytes)
                }
                underWay[slot] = (block, request.operation, byte)
                queue.start(slot, request)
            }
            while let (slot, result) = queue.nextFinished() {
                guard let (block, operation, byte) = underWay.removeValue(forKey: slot) else { continue }
                free.append(slot)
                if result != 0 { failures.append("\(operation) of block \(block) answered \(result)") }
                if block < 0 { continue }
                busy.remove(block)
                switch operation {
                case .write: written[block] = byte
                case .writeZeroes: written[block] = 0
                default:
                    check(
                        block,
                        UnsafeRawBufferPointer(start: memory + slot * QueueWorker.blockBytes, count: QueueWorker.blockBytes))
                }
            }
            if !underWay.isEmpty { driver.turn(waits: true) }
        }
    }

    private func check(_ block: Int, _ bytes: some Collection<UInt8>) {
        guard failures.count < 5, let problem = difference(block, bytes) else { return }
        failures.append(problem)
    }

    /// A block that nobody has written is as the backing file has it: its byte, then zeros.
    private func difference(_ block: Int, _ bytes: some Collection<UInt8>) -> String? {
        let isRight =
            if let byte = written[block] {
                bytes.allSatisfy { $0 == byte }
            } else {
                bytes.allSatisfy { $0 == QueueWorker.baseByte || $0 == 0 }
            }
        if isRight { return nil }
        return "block \(block) at \(deviceOffset(block)): not \(written[block].map { "\($0)" } ?? "as it was")"
    }

    func differences(from device: [UInt8]) -> [String] {
        written.indices.compactMap { block in
            let start = Int(deviceOffset(block))
            return difference(block, device[start..<(start + QueueWorker.blockBytes)])
        }
    }
}
