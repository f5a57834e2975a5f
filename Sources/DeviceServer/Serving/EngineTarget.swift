import BlockStorage
import Glibc
import IOURing
import QEDEngine
import SystemPackage
import Ublk

/// The engine as a queue's target: the kernel's requests become the engine's.
final class EngineTarget<S: Storage>: BlockTarget {
    private let engine: EngineQueue<S>
    private let image: Image
    private var whenFailed: (() -> Void)?

    /// - Parameters:
    ///   - memory: where the data of the device's requests stays in their pages.
    ///   - whenFailed: called once, on the queue's thread, when a sync of the image has failed, on whatever queue.
    init(engine: EngineQueue<S>, of image: Image, memory: RequestMemory?, whenFailed: @escaping () -> Void) {
        self.engine = engine
        self.image = image
        self.whenFailed = whenFailed
        guard let memory else { return }
        engine.lendMemory = { tag, request in
            switch memory.borrow(tag, isWrite: request.operation == .write, sizeBytes: Int(request.byteCount)) {
            case .lent(let buffer): .lent(buffer)
            case .deferred: .deferred
            case .refused(let result): .refused(result)
            }
        }
    }

    @inline(__always)
    func start(tag: Int, _ request: RequestDescriptor, _ data: RequestData) {
        let flags = request.flags
        var buffer: UnsafeMutableRawPointer?
        var registered = RegisteredBuffer.none
        switch data {
        case .none: break
        case .memory(let memory): buffer = memory
        case .pages: registered = RegisteredBuffer(index: UInt16(tag), address: 0)
        }
        switch request.operation {
        case .read:
            engine.start(tag, blockRequest(.read, request, buffer, registered))
        case .write:
            var write = blockRequest(.write, request, buffer, registered)
            write.forcesUnitAccess = flags.contains(.forceUnitAccess)
            engine.start(tag, write)
        case .flush:
            engine.start(tag, BlockRequest(.flush))
        case .discard:
            engine.start(tag, blockRequest(.discard, request, nil))
        case .writeZeroes:
            var zeroes = blockRequest(.writeZeroes, request, nil)
            zeroes.keepsSpace = flags.contains(.noUnmap)
            zeroes.forcesUnitAccess = flags.contains(.forceUnitAccess)
            engine.start(tag, zeroes)
        case .other:
            engine.refuse(tag, .notSupported)
        }
    }

    @inline(__always)
    private func blockRequest(
        _ operation: BlockOperation, _ request: RequestDescriptor, _ buffer: UnsafeMutableRawPointer?,
        _ registered: RegisteredBuffer = .none
    ) -> BlockRequest {
        BlockRequest(
            operation, deviceOffset: request.deviceOffset, byteCount: UInt64(request.sizeBytes), buffer: buffer,
            registered: registered)
    }

    @inline(__always)
    func completed(_ token: CompletionToken, _ result: Int32) { engine.storageCompleted(token, result) }
    func endOfBatch() { engine.endOfBatch() }
    @inline(__always)
    func nextFinished() -> (tag: Int, result: Int32)? {
        guard let (slot, result) = engine.nextFinished() else {
            if image.failedSync != nil { tellOfFailure() }
            return nil
        }
        return (slot, result < 0 ? EngineTarget.blockLayerError(result) : result)
    }

    /// The block layer knows one error of space; every other is EIO to whoever wrote. A file that may not grow, by a limit
    /// (`ulimit -f`), a quota or its file system (4 GiB on FAT), has no space either.
    static func blockLayerError(_ result: Int32) -> Int32 {
        switch -result {
        case EFBIG, EDQUOT: -ENOSPC
        default: result
        }
    }

    private func tellOfFailure() {
        whenFailed?()
        whenFailed = nil
    }

    var needsTick: Bool { engine.needsTick }
    func tick(nowMilliseconds: UInt64) { engine.tick(nowMilliseconds) }
    var isQuiet: Bool { engine.isQuiet }
    /// What the queue has asked of its storage.
    var statistics: EngineStatistics { engine.statistics }
    func stop() { engine.stop() }
    var isStopped: Bool { engine.isStopped }
}
