import BlockStorage
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// The moment in which an empty overlay becomes the top of a device's chain, and what was the top lies beneath it from then on,
/// unchanged: a snapshot.
///
/// Nothing has to be flushed for it. What the old top's process has in memory (entries that no commit has covered) stays there,
/// and the new image reads through it. So the switch costs the same however much is dirty; and it is not yet durable. Two
/// things must be before anything of the new top is:
///
/// 1. what the old top holds: else a power cut could keep what was written after the switch, and lose what was flushed before
///    it by a flush that came later;
/// 2. the names: else it would leave a top that no name leads to, with everything in it that a flush has promised.
///
/// Each commit of the new image sees to both first (`Committer`). When the old top has been sealed as well, it is a
/// backing file like any other (`Image.adopt`). That needs quiet queues once more, and nothing needs that at once: it can be
/// done in the moment of the next switch, so that a device whose queues are never idle is held once for each snapshot.
public final class TopSwitch: Sendable {
    /// The old top. No request of it is under way, and none will come.
    let lower: Image
    /// What that image adopts in the moment of the switch, from the last one: there is one at a time.
    let adopted: AdoptedTables?
    private let syncNames: @Sendable () async -> Errno?
    private let isDurable = Atomic(false)

    /// - Parameters:
    ///   - adopted: of an image that lies over what was sealed, and has not adopted its tables yet.
    ///   - syncNames: makes the names of both files durable; the errno where it could not. By the leader of a commit, on its
    ///     queue's thread, and again after a failure.
    public init(from lower: Image, adopting adopted: AdoptedTables? = nil, syncNames: @escaping @Sendable () async -> Errno?) {
        precondition(!lower.isReadOnly, "an image that is only read is the top for ever")
        precondition((lower.lower == nil) == (adopted == nil), "a switch before the last one's layer is sealed")
        self.lower = lower
        self.adopted = adopted
        self.syncNames = syncNames
    }

    /// Whether nothing beneath the new top is left to be made durable.
    var isSettled: Bool { isDurable.load(ordering: .acquiring) }

    /// What lies beneath the new top.
    var layers: [Layer] {
        var layers = lower.layers
        if let adopted { layers[1] = adopted.layer }
        return layers
    }

    var bases: [BaseTables?] {
        var bases = lower.bases
        if let adopted { bases[0] = adopted.tables }
        return [nil] + bases
    }

    /// Makes durable what must be before the new top is.
    /// - Parameters:
    ///   - storage: of the queue, for the time between attempts.
    ///   - commitLower: of the old top's queue.
    func settle(
        on storage: some BaseStorage, _ commitLower: () async throws(RequestError) -> Void
    ) async throws(RequestError) {
        if isSettled { return }
        if !isSabotaged(.commitTopFirst) { try await commitLower() }
        if !isSabotaged(.forgetNames) {
            let result = await storage.patiently { (await syncNames()).map { -$0.rawValue } ?? 0 }
            guard result >= 0 else { throw .storage(Errno(rawValue: -result)) }
        }
        noteSettled()
    }

    fileprivate func noteSettled() { isDurable.store(true, ordering: .releasing) }
}

extension Image {
    /// What was the top before was closed, and the names of both files made durable, by whoever calls this: no queue serves the
    /// image any more, which would see to it.
    public func noteLowerDurable() {
        guard let topSwitch else { preconditionFailure("an image that lies over no other one") }
        topSwitch.noteSettled()
    }

    /// What was the top before, as a file that does not change any more: to be adopted, once it has been sealed. Any thread.
    public func tablesToAdopt() -> AdoptedTables {
        guard let lower else { preconditionFailure("an image that has its layers' tables") }
        precondition(topSwitch?.isSettled ?? false, "tables of a file whose names a power cut takes away")
        return lower.sealedTables()
    }

    /// The image as a file beneath others: it was closed, and is written no more. Any thread.
    public func sealedTables() -> AdoptedTables {
        state.withLock { state in
            precondition(!state.hasDirtyMetadata && state.cursor.needCheck == .clear, "a layer that was not sealed")
            // It has grown since it was opened, and been cut to its last cluster.
            let fileSizeBytes = state.cursor.nextFileOffset
            guard case .qed(let header, _) = layers[0] else { preconditionFailure("the image must be QED") }
            return AdoptedTables(
                layer: .qed(header: header, fileSizeBytes: fileSizeBytes),
                tables: BaseTables(header: header, fileSizeBytes: fileSizeBytes, l1: top.l1(ofSizeBytes: header.imageSizeBytes)))
        }
    }

    /// What was the top before is a backing file like any other from now on. While all queues are quiet; each then calls
    /// `EngineQueue.adoptTables`, before any of them goes on. The pages of the chain stay as they are.
    public func adopt(_ adopted: AdoptedTables) {
        precondition(lower != nil && bases[0] === nil, "tables of another chain")
        layers[1] = adopted.layer
        bases[0] = adopted.tables
        lower = nil
        topSwitch = nil
    }
}

/// See `Image.sealedTables`.
public struct AdoptedTables: Sendable {
    public let layer: Layer
    let tables: BaseTables
}
