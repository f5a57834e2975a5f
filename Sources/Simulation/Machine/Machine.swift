import BlockStorage
import IOURing
import QEDEngine
import QEDFormat
import SystemPackage

/// The engine on simulated disks: one image with its backing chain, one or more queues, one thread.
///
/// Time passes in steps. A step runs one task that is ready or completes one storage operation, as the seed decides.
public final class Machine: @unchecked Sendable {
    // SAFETY: a simulation has one thread.

    /// A file of the chain behind the image.
    public struct BackingFile {
        public var disk: SimulatedDisk
        public var isRaw: Bool

        public init(disk: SimulatedDisk, isRaw: Bool) {
            self.disk = disk
            self.isRaw = isRaw
        }
    }

    public struct Options {
        public var cacheBytes = 1 << 16
        /// Copy on read.
        public var keepsReads = false
        /// The image has nothing else, and no more than this.
        public var keptLimitBytes: UInt64?
        public var queueCount = 1
        public var depth = 8
        public var largestRequestBytes = 1 << 18
        /// Of file offsets, lengths and buffers of the image.
        public var alignmentBytes = 1
        public var slowPercent = 10
        /// How many L2 pages can be found without a lock; nil: as many as usual.
        public var pageWordLimit: Int?
        /// By how much the image is extended ahead at first; nil: as usual, which is more than most simulated disks hold.
        public var smallestChunkBytes: UInt64?

        public init() {}
    }

    /// Nothing can go on, and somebody waits.
    public struct Hang: Error, CustomStringConvertible {
        public var reason: String
        public var description: String { "hang: \(reason)" }
    }

    /// The image's: of the top of its chain.
    public internal(set) var disk: SimulatedDisk
    /// For the image's mapping log; nil: nothing outlives the process.
    public internal(set) var session: SimulatedSession?
    /// What was the top before the last switch, until it is sealed and its tables are adopted.
    var lower: LowerLayer?
    /// Snapshots beneath that, the newest first: nothing changes them any more, but for one that others are merged into.
    var sealed: [FrozenLayer]
    var merge: SimulatedMerge?
    /// What the image calls the file beneath it.
    var topName: String
    /// What lies at the bottom; nothing beneath an image that names no backing file (any more).
    var backing: [BackingFile]
    var flattening: SimulatedFlattening?
    var forgetting: SimulatedForgetting?
    /// Something is fetched from the bottom of the chain (`beginFetch`).
    var isFetching = false
    let options: Options
    let io = SimulatedIO()
    let executor = SimulatedExecutor()
    public var random: SeededRandom
    public internal(set) var image: Image?
    private(set) var queues: [SimulatedQueue] = []
    /// Milliseconds; what the engine's housekeeping believes.
    public private(set) var clock: UInt64 = 1

    public init(
        disk: SimulatedDisk, sealed: [FrozenLayer] = [], backing: [BackingFile], options: Options, seed: UInt64,
        session: SimulatedSession? = nil
    ) {
        self.disk = disk
        topName = Machine.backingName(of: disk)
        self.sealed = topName.isEmpty ? [] : sealed
        self.session = session
        self.backing = topName.isEmpty ? [] : backing
        self.options = options
        random = SeededRandom(seed: seed)
        io.slowPercent = options.slowPercent
    }

    public var fault: Fault? {
        get { io.fault }
        set { io.fault = newValue }
    }
    public var completedOperations: Int { io.completedCount }
    public var faultCount: Int { io.faultCount }

    // MARK: - Steps

    /// Does one thing.
    /// - Returns: whether a storage operation has completed; nil when there was nothing to do.
    @discardableResult
    public func step() -> Bool? {
        // Before it waits, a queue ends its batch.
        if !canStep { endOfBatch() }
        let hasReady = executor.hasReady
        let hasOperations = !io.inFlight.isEmpty
        if hasReady && (!hasOperations || random.chance(3, in: 4)) {
            executor.runOne(&random)
            return false
        }
        guard hasOperations else { return nil }
        let (operation, result) = io.completeOne(&random)
        if operation.token.isInline {
            let queue = operation.queue == options.queueCount ? merge?.queue : queues[operation.queue].engine
            queue?.storageCompleted(operation.token, result)
        } else {
            operation.token.resume(returning: result)
        }
        return true
    }

    /// More steps than anything takes here: what goes on for longer goes on for ever, and fills the memory.
    static let longestRun = 200_000

    /// Runs one operation to its end, and whatever goes on beside it.
    func run<Value: Sendable, Failure: Error>(
        _ name: String, afterStep: (Bool) throws -> Void = { _ in },
        _ operation: @escaping @Sendable () async throws(Failure) -> Value
    ) throws -> Result<Value, Failure> {
        let box = ResultBox<Value, Failure>()
        Task(executorPreference: executor) {
            do throws(Failure) { box.result = .success(try await operation()) } catch { box.result = .failure(error) }
        }
        for _ in 0..<Machine.longestRun {
            if let result = box.result { return result }
            guard let completed = step() else { throw Hang(reason: "\(name) waits for nothing") }
            try afterStep(completed)
        }
        throw Hang(reason: "\(name) goes on for ever")
    }

    private final class ResultBox<Value, Failure: Error>: @unchecked Sendable {
        // SAFETY: a simulation has one thread.
        var result: Result<Value, Failure>?
    }

    fileprivate var canStep: Bool { executor.hasReady || !io.inFlight.isEmpty }

    // MARK: - The image's life

    /// Why an image was not opened.
    public enum Refusal: Error {
        case header(QEDFormatError)
        case image(ImageOpenError)
    }

    func storage(
        _ disk: SimulatedDisk, queue: Int, alignmentBytes: Int, tellsHolesTruly: Bool
    ) -> SimulatedStorage {
        SimulatedStorage(
            io: io, disk: disk, queue: queue,
            alignment: StorageAlignment(offsetBytes: alignmentBytes, memoryBytes: alignmentBytes),
            tellsHolesTruly: tellsHolesTruly)
    }

    static func layer(_ disk: SimulatedDisk) throws(QEDFormatError) -> Layer {
        var bytes = [UInt8](repeating: 0, count: Int(min(64, disk.length)))
        _ = bytes.withUnsafeMutableBytes { buffer in
            buffer.baseAddress.map { disk.read(into: $0, byteCount: buffer.count, at: 0) }
        }
        return .qed(header: try QEDHeader(parsing: bytes, fileSizeBytes: disk.length), fileSizeBytes: disk.length)
    }

    /// Opens the image for reading and writing, as the server does.
    /// - Throws: `Hang`.
    public func open(isReadOnly: Bool = false, afterStep: (Bool) throws -> Void = { _ in }) throws -> Refusal? {
        var chain: [Layer] = []
        do throws(QEDFormatError) {
            chain.append(try Machine.layer(disk))
            for file in sealed.map(\.backingFile) + backing {
                chain.append(file.isRaw ? .raw(sizeBytes: file.disk.length) : try Machine.layer(file.disk))
            }
        } catch {
            return .header(error)
        }
        let storages = storages(beneath: sealed.map(\.backingFile))
        let members = chain
        let openOptions = imageOptions(isReadOnly: isReadOnly, session)
        let first = storages[0]
        let opened = try run("opening", afterStep: afterStep) { () async throws(ImageOpenError) -> Image in
            try await Image.open(chain: members, storages: first, options: openOptions)
        }
        switch opened {
        case .failure(let error):
            return .image(error)
        case .success(let image):
            self.image = image
            queues = storages.map {
                SimulatedQueue(
                    EngineQueue(
                        image: image, storages: $0, depth: options.depth,
                        largestRequestBytes: options.largestRequestBytes, executor: executor))
            }
            return nil
        }
    }

    /// Of the image, for each queue.
    /// - Parameter files: those of the chain above the bottom.
    func storages(beneath files: [BackingFile]) -> [ChainStorage<SimulatedStorage>] {
        (0..<options.queueCount).map { queue in
            ChainStorage(
                top: storage(disk, queue: queue, alignmentBytes: options.alignmentBytes, tellsHolesTruly: false),
                // What was the top is still accessed as it was then.
                bases: files.map {
                    SimulatedBase(
                        storage: storage(
                            $0.disk, queue: queue, alignmentBytes: options.alignmentBytes, tellsHolesTruly: true))
                }
                    + backing.map {
                        SimulatedBase(storage: storage($0.disk, queue: queue, alignmentBytes: 1, tellsHolesTruly: true))
                    })
        }
    }

    func imageOptions(isReadOnly: Bool, _ session: SimulatedSession?) -> ImageOptions {
        var imageOptions = ImageOptions(
            isReadOnly: isReadOnly, cacheBytes: options.cacheBytes, session: session?.engineMemory)
        imageOptions.keepsReads = options.keepsReads
        imageOptions.keptLimitBytes = options.keptLimitBytes
        if let limit = options.pageWordLimit { imageOptions.pageWordLimit = limit }
        if let chunk = options.smallestChunkBytes { imageOptions.smallestChunkBytes = chunk }
        return imageOptions
    }

    public var queueCount: Int { queues.count }

    public func start(queue: Int, slot: Int, _ request: BlockRequest) { queues[queue].arrive(slot, request) }

    public func nextFinished(queue: Int) -> (slot: Int, result: Int32)? { queues[queue].nextFinished() }

    public func endOfBatch() {
        for queue in queues { queue.endOfBatch() }
    }

    /// Lets time pass, as the owner of the first queue sees it.
    public func tick(milliseconds: UInt64) {
        clock += milliseconds
        queues[0].tick(clock)
    }

    /// Performs one request while nothing else is under way.
    func perform(_ request: BlockRequest) throws -> Int32 {
        queues[0].arrive(0, request)
        for _ in 0..<Machine.longestRun {
            if let (_, result) = queues[0].nextFinished() { return result }
            if step() == nil { throw Hang(reason: "\(request.operation) waits for nothing") }
        }
        throw Hang(reason: "\(request.operation) goes on for ever")
    }

    /// Runs until nothing is ready and nothing in flight.
    public func settle(afterStep: (Bool) throws -> Void = { _ in }) throws {
        for _ in 0..<Machine.longestRun {
            guard let completed = step() else { return }
            try afterStep(completed)
        }
        throw Hang(reason: "the machine never comes to rest")
    }

    /// Closes the image in good order, when no request is under way; then takes the machine down.
    /// - Returns: what the engine said.
    public func close(afterStep: (Bool) throws -> Void = { _ in }) throws -> RequestError? {
        precondition(merge.map { $0.phase == .failed } ?? true, "an image is closed beside a merge")
        try settle(afterStep: afterStep)
        let queue = queues[0].engine
        let result = try run("closing", afterStep: afterStep) { () async throws(RequestError) in
            try await queue.close()
        }
        try takeDown()
        if case .failure(let error) = result { return error }
        return nil
    }

    /// Ends all tasks without touching the disk any more: the process is gone, or about to be.
    public func takeDown() throws {
        io.isDead = true
        try settle()
        endMergeQueue()
        for queue in queues.map(\.engine) {
            while queue.nextFinished() != nil {}
            if queue.hasRequests { throw Hang(reason: "a request is never answered") }
            queue.stop()
        }
        try settle()
        for queue in queues where !queue.engine.isStopped { throw Hang(reason: "a task does not end") }
        queues = []
        image = nil
    }
}

extension Machine {
    /// Whether a task can run, or an operation can complete.
    var hasReady: Bool { canStep }

    var isHeld: Bool { queues.contains { $0.isHeld } }

    /// All queues are held, and nothing is under way on any.
    var isQuiet: Bool { queues.allSatisfy(\.isQuiet) }
}
