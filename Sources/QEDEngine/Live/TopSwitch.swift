import Platform
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
/// Each commit of the new image sees to both first (`Committer`). When the old top has been sealed as well, the image takes
/// over its tables (`Image.adoptTables`), and it is a backing file like any other.
public final class TopSwitch: Sendable {
    /// The old top. No request of it is under way, and none will come.
    let lower: Image
    private let syncNames: @Sendable () async -> Errno?
    private let isDurable = Atomic(false)

    /// - Parameter syncNames: makes the names of both files durable; the errno where it could not. By the leader of a commit, on
    ///   its queue's thread, and again after a failure.
    public init(from lower: Image, syncNames: @escaping @Sendable () async -> Errno?) {
        precondition(!lower.isReadOnly, "an image that is only read is the top for ever")
        precondition(lower.lower == nil, "a switch before the last one's layer is sealed")
        self.lower = lower
        self.syncNames = syncNames
    }

    /// Whether nothing beneath the new top is left to be made durable.
    var isSettled: Bool { isDurable.load(ordering: .acquiring) }

    /// Makes durable what must be before the new top is.
    /// - Parameter commitLower: of the old top's queue.
    func settle(_ commitLower: () async throws(RequestError) -> Void) async throws(RequestError) {
        if isSettled { return }
        if !isSabotaged(.commitTopFirst) { try await commitLower() }
        if !isSabotaged(.forgetNames), let errno = await syncNames() { throw .storage(errno) }
        isDurable.store(true, ordering: .releasing)
    }
}

extension Image {
    /// Makes tables of this image's own, in its own cache, for the layers beneath it: to be adopted, once what was the top has
    /// been sealed. No page of them is in memory yet. Any thread.
    public func tablesToAdopt() -> AdoptedTables {
        guard let lower else { preconditionFailure("an image that has its layers' tables") }
        precondition(
            lower.state.withLock { !$0.hasDirtyMetadata && $0.cursor.needCheck == .clear }, "a layer that was not sealed")
        var layers = [self.layers[0]]
        var tables: [LayerTables?] = [top]
        for (index, layer) in lower.layers.enumerated() {
            guard let old = lower.tables[index] else {
                layers.append(layer)
                tables.append(nil)
                continue
            }
            // What was the top has grown since it was opened, and been cut to its last cluster.
            let fileSizeBytes = index == 0 ? lower.state.withLock { $0.cursor.nextFileOffset } : old.fileSizeBytes
            layers.append(.qed(header: old.header, fileSizeBytes: fileSizeBytes))
            let l1 = lower.state.withLock { _ in old.l1 }
            tables.append(
                state.withLock { state in
                    LayerTables(
                        index: index + 1, header: old.header, fileSizeBytes: fileSizeBytes, l1: l1, cache: state.cache)
                })
        }
        precondition(tables.count == self.tables.count, "a chain of another length")
        return AdoptedTables(layers: layers, tables: tables)
    }

    /// The image finds what lies beneath it by these tables from now on. While all queues are quiet; each then calls
    /// `EngineQueue.adoptTables`, before any of them goes on.
    public func adopt(_ adopted: AdoptedTables) {
        precondition(lower != nil && adopted.tables.count == tables.count, "tables of another chain")
        layers = adopted.layers
        tables = adopted.tables
        lower = nil
        topSwitch = nil
        precondition(tables[0] === top, "another top")
    }
}

/// See `Image.tablesToAdopt`.
public struct AdoptedTables: Sendable {
    let layers: [Layer]
    let tables: [LayerTables?]
}
