import BlockStorage
import Foundation
import QEDChain
import Simulation

@testable import QEDEngine

/// What the device must read as: the model that every write, zero and discard is played on as well.
///
/// Only the ranges that a history touches are modelled, at `origins`; images of terabytes stay cheap.
final class DeviceModel {
    let windowBytes: Int
    let origins: [UInt64]
    var windows: [[UInt8]]

    init(origins: [UInt64], windowBytes: Int, initial: (UInt64, Int) -> [UInt8]) {
        self.origins = origins
        self.windowBytes = windowBytes
        windows = origins.map { initial($0, windowBytes) }
    }
}

/// Plays random requests on an engine and on a model, many at once, and compares what is read.
final class RandomHistory {
    let engine: LocalEngine
    let model: DeviceModel
    private var random: SeededRandom
    private let blockBytes: Int
    private let buffer: UnsafeMutableRawPointer
    private let largestBytes = 256 << 10
    private let concurrency = 24
    private(set) var mismatches: [String] = []
    /// Whether anything is made durable before the engine is closed.
    var flushes = true
    private(set) var registered: RegisteredMemory?

    init(engine: LocalEngine, model: DeviceModel, seed: UInt64) {
        self.engine = engine
        self.model = model
        random = SeededRandom(seed: seed)
        blockBytes = max(engine.chain[0].file.alignment.offsetBytes, 512)
        buffer = .allocate(byteCount: concurrency * largestBytes, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    /// From now on the data of requests is in registered buffers, and the memory that they lend to the engine is
    /// another.
    func registerBuffers() throws {
        registered = try RegisteredMemory(of: engine, at: buffer, count: concurrency, sizeBytes: largestBytes)
    }

    /// Performs `rounds` batches of requests that do not overlap inside a batch.
    func play(rounds: Int) {
        for round in 0..<rounds { playBatch(round) }
    }

    private func playBatch(_ round: Int) {
        var requests: [BlockRequest] = []
        var effects: [(request: BlockRequest, window: Int, offset: Int, count: Int)] = []
        var taken: [(Int, Range<Int>)] = []
        for index in 0..<concurrency {
            let window = Int.random(in: 0..<model.origins.count, using: &random)
            let blocks = model.windowBytes / blockBytes
            let largest = min(largestBytes / blockBytes, blocks)
            let count =
                Bool.random(using: &random) ? Int.random(in: 1...8, using: &random) : Int.random(in: 1...largest, using: &random)
            let first = Int.random(in: 0...(blocks - min(count, blocks)), using: &random)
            let range = (first * blockBytes)..<(min(first + count, blocks) * blockBytes)
            if taken.contains(where: { $0.0 == window && $0.1.overlaps(range) }) { continue }
            taken.append((window, range))
            let memory = buffer + index * largestBytes
            let deviceOffset = model.origins[window] + UInt64(range.lowerBound)
            var request = BlockRequest(.read, deviceOffset: deviceOffset, byteCount: UInt64(range.count), buffer: memory)
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<9:
                request.operation = .write
                request.forcesUnitAccess = Int.random(in: 0..<20, using: &random) == 0 && flushes
                let value = UInt8.random(in: 1...255, using: &random)
                for sector in 0..<(range.count / 512) {
                    memset(memory + sector * 512, Int32(value &+ UInt8(truncatingIfNeeded: sector)), 512)
                }
            case 9..<16: memory.initializeMemory(as: UInt8.self, repeating: 0xEE, count: range.count)
            case 16..<18:
                request.operation = .writeZeroes
                request.keepsSpace = Bool.random(using: &random)
                request.buffer = nil
            case 18 where flushes: request = BlockRequest(.flush)
            default: continue
            }
            if let registered {
                // Sometimes a buffer that is not there: the transfer fails, and is done again in memory.
                let isRefused = Int.random(in: 0..<8, using: &random) == 0
                registered.move(&request, to: index, isRefused: isRefused)
            }
            requests.append(request)
            effects.append((request, window, range.lowerBound, range.count))
        }
        let results = engine.perform(requests)
        registered?.finish()
        for (effect, result) in zip(effects, results) {
            if result != 0 { mismatches.append("round \(round): \(effect.request) answered \(result)") }
            let range = effect.offset..<(effect.offset + effect.count)
            switch effect.request.operation {
            case .write:
                guard let memory = RegisteredMemory.data(of: effect.request) else { continue }
                model.windows[effect.window].replaceSubrange(
                    range, with: UnsafeRawBufferPointer(start: memory, count: effect.count))
            case .writeZeroes:
                model.windows[effect.window].replaceSubrange(range, with: repeatElement(0, count: effect.count))
            case .read:
                guard let memory = RegisteredMemory.data(of: effect.request) else { continue }
                compare(memory, with: model.windows[effect.window][range], at: effect.request.deviceOffset, round: round)
            case .flush, .discard: break
            }
        }
    }

    private func compare(_ memory: UnsafeRawPointer, with expected: ArraySlice<UInt8>, at deviceOffset: UInt64, round: Int) {
        let isEqual = expected.withUnsafeBytes { bytes in bytes.baseAddress.map { memcmp($0, memory, bytes.count) == 0 } ?? true }
        if isEqual { return }
        let bytes = UnsafeRawBufferPointer(start: memory, count: expected.count)
        let first = zip(bytes, expected).enumerated().first { $0.element.0 != $0.element.1 }
        let offset = deviceOffset + UInt64(first?.offset ?? 0)
        mismatches.append(
            "round \(round): device offset \(offset) reads \(first?.element.0 ?? 0), not \(first?.element.1 ?? 0)")
    }

    /// Reads every window whole and compares.
    func compareAll() {
        for (index, origin) in model.origins.enumerated() {
            var position = 0
            while position < model.windowBytes {
                let count = min(largestBytes, model.windowBytes - position)
                let result = engine.perform([
                    BlockRequest(.read, deviceOffset: origin + UInt64(position), byteCount: UInt64(count), buffer: buffer)
                ])
                if result != [0] { mismatches.append("read at \(origin + UInt64(position)) answered \(result)") }
                compare(
                    buffer, with: model.windows[index][position..<(position + count)], at: origin + UInt64(position), round: -1)
                position += count
            }
        }
    }
}
