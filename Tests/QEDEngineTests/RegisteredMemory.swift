import BlockStorage
import Foundation
import IOURing

@testable import QEDChain
@testable import QEDEngine

/// Buffers registered with an engine's ring, and the memory that is lent for them: what the kernel is for a device
/// without copies.
final class RegisteredMemory {
    private let buffers: UnsafeMutableRawPointer
    private let lendable: UnsafeMutableRawPointer
    private let count: Int
    private let sizeBytes: Int
    /// Reads that were done in lent memory.
    private var lent: [BlockRequest] = []

    /// - Parameter buffers: `count` of them, of `sizeBytes` each; they stay the caller's.
    init(of engine: LocalEngine, at buffers: UnsafeMutableRawPointer, count: Int, sizeBytes: Int) throws {
        self.buffers = buffers
        self.count = count
        self.sizeBytes = sizeBytes
        lendable = .allocate(byteCount: count * sizeBytes, alignment: 4096)
        try engine.driver.loop.ring.registerBuffers(
            (0..<count).map { UnsafeMutableRawBufferPointer(start: buffers + $0 * sizeBytes, count: sizeBytes) })
        engine.queue.lendMemory = { [unowned self] _, request in self.lend(request) }
    }

    deinit { lendable.deallocate() }

    /// Makes a request that has buffer `index` one that has it registered.
    /// - Parameter isRefused: it names a buffer that is not there.
    func move(_ request: inout BlockRequest, to index: Int, isRefused: Bool) {
        guard let buffer = request.buffer else { return }
        request.registered = RegisteredBuffer(
            index: UInt16(isRefused ? count : index), address: UInt64(UInt(bitPattern: buffer)))
        // Whoever takes it for the data is found out.
        memset(lendable + index * sizeBytes, 0xBB, sizeBytes)
        request.buffer = lendable + index * sizeBytes
    }

    private func lend(_ request: BlockRequest) -> Int32 {
        guard let memory = request.buffer, let data = RegisteredMemory.data(of: request) else { return -EFAULT }
        if request.operation == .write { memcpy(memory, data, Int(request.byteCount)) } else { lent.append(request) }
        return 0
    }

    /// Puts where it belongs what was read into lent memory.
    func finish() {
        for request in lent {
            guard let memory = request.buffer, let data = RegisteredMemory.data(of: request) else { continue }
            memcpy(data, memory, Int(request.byteCount))
        }
        lent = []
    }

    static func data(of request: BlockRequest) -> UnsafeMutableRawPointer? {
        if request.registered.isNone { return request.buffer }
        return UnsafeMutableRawPointer(bitPattern: UInt(request.registered.address))
    }
}
