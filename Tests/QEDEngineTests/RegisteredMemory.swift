import BlockStorage
import Foundation
import IOURing
import SystemPackage

@testable import QEDChain
@testable import QEDEngine

/// Buffers registered with an engine's ring, and the memory that is lent for them: what the kernel is for a device
/// without copies.
final class RegisteredMemory: @unchecked Sendable {
    // SAFETY: of the thread of the engine's ring, on which its tasks run.
    private let engine: LocalEngine
    private let buffers: UnsafeMutableRawPointer
    private let lendable: UnsafeMutableRawPointer
    private let count: Int
    private let sizeBytes: Int
    /// Reads that were done in lent memory, and where.
    private var lent: [(request: BlockRequest, memory: UnsafeMutableRawPointer)] = []
    private var asked = 0
    /// Requests that had to wait for memory.
    private(set) var deferrals = 0

    /// - Parameter buffers: `count` of them, of `sizeBytes` each; they stay the caller's.
    init(of engine: LocalEngine, at buffers: UnsafeMutableRawPointer, count: Int, sizeBytes: Int) throws {
        self.engine = engine
        self.buffers = buffers
        self.count = count
        self.sizeBytes = sizeBytes
        // Whoever takes it for the data is found out.
        lendable = .allocate(byteCount: engine.queue.depth * sizeBytes, alignment: 4096)
        memset(lendable, 0xBB, engine.queue.depth * sizeBytes)
        try engine.driver.loop.ring.registerBuffers(
            (0..<count).map { UnsafeMutableRawBufferPointer(start: buffers + $0 * sizeBytes, count: sizeBytes) })
        engine.queue.lendMemory = { [unowned self] tag, request in
            asked += 1
            guard asked % 3 == 0 else { return lend(tag, request) }
            deferrals += 1
            // When the engine has let go of the request.
            Task(executorPreference: engine.driver.loop.executor) { [unowned self] in startAgain(tag, request) }
            return .deferred
        }
    }

    deinit { lendable.deallocate() }

    /// Makes a request that has buffer `index` one that has it registered.
    /// - Parameter isRefused: it names a buffer that is not there.
    func move(_ request: inout BlockRequest, to index: Int, isRefused: Bool) {
        guard let buffer = request.buffer else { return }
        request.registered = RegisteredBuffer(
            index: UInt16(isRefused ? count : index), address: UInt64(UInt(bitPattern: buffer)))
        request.buffer = nil
    }

    private func lend(_ tag: Int, _ request: BlockRequest) -> MemoryLoan {
        guard request.buffer == nil, let data = RegisteredMemory.data(of: request) else { return .refused(-EFAULT) }
        let memory = lendable + tag * sizeBytes
        if request.operation == .write { memcpy(memory, data, Int(request.byteCount)) } else { lent.append((request, memory)) }
        return .lent(memory)
    }

    private func startAgain(_ tag: Int, _ request: BlockRequest) {
        guard case .lent(let memory) = lend(tag, request) else { return engine.queue.refuse(tag, .badAddress) }
        var request = request
        request.buffer = memory
        request.registered = .none
        engine.queue.start(tag, request)
    }

    /// Puts where it belongs what was read into lent memory.
    func finish() {
        for (request, memory) in lent {
            guard let data = RegisteredMemory.data(of: request) else { continue }
            memcpy(data, memory, Int(request.byteCount))
        }
        lent = []
        memset(lendable, 0xBB, engine.queue.depth * sizeBytes)
    }

    static func data(of request: BlockRequest) -> UnsafeMutableRawPointer? {
        if request.registered.isNone { return request.buffer }
        return UnsafeMutableRawPointer(bitPattern: UInt(request.registered.address))
    }
}
