import BlockStorage
import Glibc
import IOURing
import QEDChain
import QEDEngine
import SystemPackage
import Ublk

/// The engine as a queue's target: the kernel's requests become the engine's.
final class EngineTarget<S: Storage>: BlockTarget {
    private var engine: EngineQueue<S>
    private var image: Image
    private let ring: Ring
    private let memory: RequestMemory?
    private var whenFailed: (() -> Void)?

    /// - Parameters:
    ///   - ring: the queue's.
    ///   - memory: where the data of the device's requests stays in their pages.
    ///   - whenFailed: called once, on the queue's thread, when a sync of the image has failed, on whatever queue.
    init(
        engine: EngineQueue<S>, of image: Image, ring: Ring, memory: RequestMemory?, whenFailed: @escaping () -> Void
    ) {
        self.ring = ring
        self.engine = engine
        self.image = image
        self.memory = memory
        self.whenFailed = whenFailed
        lendMemory()
    }

    private func lendMemory() {
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

    // MARK: - A switch of the top, or of the chain, while all queues are quiet

    /// The requests that come from now on are those of `image`, which lies over what was served until now.
    /// - Parameter chain: its files.
    func switchTop(to image: Image, chain: [LayerFile]) where S == FileStorage {
        engine = engine.successor(for: image, storages: chain.storages(on: ring))
        self.image = image
        lendMemory()
    }

    /// The image's chain is another, or what is served is another image.
    /// - Parameter chain: its files.
    func replaceEngine(of image: Image, chain: [LayerFile]) where S == FileStorage {
        engine = engine.replacement(for: image, storages: chain.storages(on: ring))
        self.image = image
    }

    /// See `EngineQueue.beginOwnWork`.
    func beginOwnWork(_ body: @escaping (EngineQueue<S>) async -> Void) -> Bool { engine.beginOwnWork(body) }

    /// Begins to seal what was served before the last switch. By one queue.
    func beginSealingLower(_ ended: @escaping (RequestError?) -> Void) { engine.beginSealingLower(ended) }

    /// What was sealed is a file like any other beneath the image.
    func adoptTables() { engine.adoptTables() }

    var needsTick: Bool { engine.needsTick }
    func tick(nowMilliseconds: UInt64) { engine.tick(nowMilliseconds) }
    var isQuiet: Bool { engine.isQuiet }
    /// Not even requests are under way.
    var isIdle: Bool { engine.isQuiet && !engine.hasRequests }
    /// What the queue has asked of its storage.
    var statistics: EngineStatistics { engine.statistics }
    /// What the image's tables take in memory: the same for all queues.
    var cacheUse: CacheUse { engine.cacheUse }
    func stop() { engine.stop() }
    var isStopped: Bool { engine.isStopped }
}
