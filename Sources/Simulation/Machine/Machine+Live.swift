import BlockStorage
import QEDEngine
import QEDFormat

/// What is done to a machine's image while it is served, besides a switch of its top.
extension Machine {
    /// Makes the disk larger, while nobody asks for anything.
    func grow(
        to sizeBytes: UInt64, afterStep: (Bool) throws -> Void
    ) throws -> HeaderChangeError? {
        guard let image, lower == nil, merge == nil else { preconditionFailure("nothing that grows") }
        for queue in queues { queue.hold() }
        try settle()
        let oldSizeBytes = image.sizeBytes
        image.replaceChain(try NextChain.of(image, grownTo: sizeBytes))
        replaceEngines(for: image)
        for queue in queues { queue.resume() }
        let queue = queues[0].engine
        let result = try run("growing", afterStep: afterStep) { () async throws(HeaderChangeError) in
            try await queue.grow(from: oldSizeBytes)
        }
        if case .failure(let error) = result { return error }
        return nil
    }

    func runInBackground(_ body: @escaping @Sendable () async -> Void) { Task(executorPreference: executor) { await body() } }

    /// The file that others are merged into, with those beneath it, as a queue of its own reaches them.
    func mergeStorage(_ merge: SimulatedMerge) -> ChainStorage<SimulatedStorage> {
        func file(_ disk: SimulatedDisk) -> SimulatedStorage {
            storage(disk, queue: options.queueCount, alignmentBytes: 1, tellsHolesTruly: true)
        }
        let beneath = sealed[(merge.removedCount + 1)...].map(\.backingFile) + backing
        return ChainStorage(top: file(merge.target), bases: beneath.map { SimulatedBase(storage: file($0.disk)) })
    }

    func mergeLayers(_ merge: SimulatedMerge) throws -> [Layer] {
        let beneath = sealed[(merge.removedCount + 1)...].map(\.backingFile) + backing
        return try [Machine.layer(merge.target)]
            + beneath.map { $0.isRaw ? .raw(sizeBytes: $0.disk.length) : try Machine.layer($0.disk) }
    }

    func makeMergeQueue(_ image: Image, _ storages: ChainStorage<SimulatedStorage>) -> EngineQueue<SimulatedStorage> {
        EngineQueue(
            image: image, storages: storages, depth: 1, largestRequestBytes: options.largestRequestBytes, executor: executor)
    }

    func endMergeQueue() { merge?.queue?.stop() }

    /// Each queue is replaced, because the image's chain is another.
    func replaceEngines(for image: Image) {
        for (queue, storages) in zip(queues, storages(beneath: sealed.map(\.backingFile))) {
            queue.switchTop(to: queue.engine.replacement(for: image, storages: storages))
        }
    }
}
