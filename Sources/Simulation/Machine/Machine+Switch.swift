import BlockStorage
import IOURing
import QEDEngine
import QEDFormat
import SystemPackage

/// Another image becomes the one that a machine serves: an overlay over it, or one over a snapshot beneath it.
extension Machine {
    /// Opens a new, empty overlay over the image, while that is served.
    /// - Parameters:
    ///   - overlay: durable.
    ///   - session: for its log.
    func openOverlay(
        on overlay: SimulatedDisk, _ session: SimulatedSession?, afterStep: (Bool) throws -> Void
    ) throws -> NextTop {
        guard let image else { preconditionFailure("a switch of nothing") }
        let names = SimulatedNames()
        let io = self.io
        let topSwitch = TopSwitch(from: image, adopting: lower.map { _ in image.tablesToAdopt() }) {
            let result = await withUnsafeContinuation { (continuation: CompletionContinuation) in
                io.submit(
                    .syncNames(names), disk: overlay, queue: 0, token: CompletionToken(continuation), alignment: .none)
            }
            return result < 0 ? Errno(rawValue: -result) : nil
        }
        let layer = try Machine.layer(overlay)
        let options = imageOptions(isReadOnly: false, session)
        let storage = storage(
            overlay, queue: 0, alignmentBytes: self.options.alignmentBytes, tellsHolesTruly: false)
        let opened = try run("opening an overlay", afterStep: afterStep) { () async throws(ImageOpenError) -> Image in
            try await Image.open(top: layer, storage: storage, options: options, over: topSwitch)
        }
        return NextTop(image: try opened.get(), disk: overlay, session: session, names: names)
    }

    /// While all queues are quiet.
    /// - Parameter history: what the snapshot is to hold.
    func switchTop(to next: NextTop, _ history: SectorHistory) {
        precondition(isQuiet && lower == nil, "a switch under requests")
        lower = LowerLayer(disk: disk, session: session, names: next.names, history: history)
        disk = next.disk
        topName = Machine.backingName(of: disk)
        session = next.session
        image = next.image
        let files = [BackingFile(disk: lower?.disk ?? disk, isRaw: false)] + sealed.map(\.backingFile)
        for (queue, storages) in zip(queues, storages(beneath: files)) {
            queue.switchTop(to: queue.engine.successor(for: next.image, storages: storages))
        }
    }

    /// Begins to seal what was the top before, in the background.
    func beginSeal() {
        guard lower?.seal == .open else { return }
        lower?.seal = .underWay
        let queue = queues[0].engine
        Task(executorPreference: executor) {
            do throws(RequestError) {
                try await queue.sealLower()
                self.lower?.seal = .done
            } catch {
                self.lower?.seal = .open
            }
        }
    }

    /// The image adopts the tables of the layers beneath it. While all queues are quiet.
    /// - Returns: what was the top before, for good.
    func adopt() -> LowerLayer {
        guard let image, let lower, lower.seal == .done, isQuiet else { preconditionFailure("nothing to adopt") }
        image.adopt(image.tablesToAdopt())
        for queue in queues { queue.engine.adoptTables() }
        sealed.insert(FrozenLayer(lower.disk), at: 0)
        self.lower = nil
        return lower
    }

    /// Seals what was the top before, if there was a switch, when no request is under way.
    /// - Returns: it.
    func finishSwitch() throws -> LowerLayer? {
        guard lower != nil else { return nil }
        for _ in 0..<4 where lower?.seal != .done {
            beginSeal()
            try settle()
        }
        guard lower?.seal == .done else { throw Violation("what was the top before a switch cannot be sealed") }
        for queue in queues { queue.hold() }
        defer { for queue in queues { queue.resume() } }
        try settle()
        return adopt()
    }

    // MARK: - Back to a snapshot

    /// Opens a new, empty overlay over a snapshot beneath the image, while that is served.
    /// - Parameters:
    ///   - overlay: durable.
    ///   - removedCount: how many snapshots lie between.
    func openOverlay(
        on overlay: SimulatedDisk, beneath removedCount: Int, _ session: SimulatedSession?, afterStep: (Bool) throws -> Void
    ) throws -> NextTop {
        let files = sealed[removedCount...].map(\.backingFile)
        let chain =
            try [Machine.layer(overlay)]
            + (files + backing).map { $0.isRaw ? .raw(sizeBytes: $0.disk.length) : try Machine.layer($0.disk) }
        let options = imageOptions(isReadOnly: false, session)
        let storages = ChainStorage(
            top: storage(overlay, queue: 0, alignmentBytes: self.options.alignmentBytes, tellsHolesTruly: false),
            bases: storages(beneath: files)[0].bases)
        let opened = try run("opening an overlay", afterStep: afterStep) { () async throws(ImageOpenError) -> Image in
            try await Image.open(chain: chain, storages: storages, options: options)
        }
        return NextTop(image: try opened.get(), disk: overlay, session: session, names: SimulatedNames())
    }

    /// The image is that overlay from now on, durably, and what was above its snapshot is gone. While all queues are quiet.
    func rollBack(to next: NextTop, removing removedCount: Int) {
        precondition(isQuiet && lower == nil && merge == nil, "a rollback beside requests, or something else")
        sealed.removeFirst(removedCount)
        disk = next.disk
        topName = Machine.backingName(of: disk)
        session = next.session
        image = next.image
        replaceEngines(for: next.image)
    }
}
