import BlockStorage
import QEDEngine
import QEDFormat

/// Moves clusters from the end of an image into clusters that nothing refers to, and cuts the file.
///
/// A copy is durable before the entry that names it is written, and entries are durable before the old place is given
/// up. So at a power cut every entry names the old place or the new one, and both hold the same; the rest are leaks,
/// which the next run uses.
public struct ImageCompaction: Sendable {
    public struct Outcome: Sendable, Equatable {
        public var movedClusters: UInt64 = 0
        /// Those that held nothing but zeros.
        public var freedClusters: UInt64 = 0
        public var fileSizeBytesBefore: UInt64 = 0
        public var fileSizeBytes: UInt64 = 0
    }

    public var path: String

    public init(path: String) { self.path = path }

    /// Blocks until it is durable. The backing file is not needed.
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) -> Outcome {
        let image = try OfflineImage.sound(path: path)
        return try image.edit { try await ImageCompaction.compact($0, progress: progress) }
    }

    /// The same over any storage.
    static func compact<S: Storage>(
        _ structure: ImageStructure<S>, progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> Outcome {
        var structure = structure
        var outcome = Outcome(fileSizeBytesBefore: structure.fileSizeBytes)
        outcome.freedClusters = try await ZeroClusters(structure, progress: progress).free()
        let pass = try await survey(structure)
        if pass.report.leakedClusters > 0 || pass.report.imageEndFileOffset != structure.fileSizeBytes {
            let inUse = pass.owners.ownedCount(in: 0..<pass.owners.clusterCount)
            let round = CompactionRound(structure, cut: inUse, progress: progress)
            outcome.movedClusters += try await round.run(pass.owners)
            let leaks = try await cutFile(&structure)
            // A table needs its clusters together, and the holes may be too small for it.
            if leaks > 0 { outcome.movedClusters += try await makeOnePiece(&structure, progress) }
        }
        outcome.fileSizeBytes = structure.fileSizeBytes
        return outcome
    }

    /// Takes the tables out of the way, closes all holes with data, and puts the tables behind it.
    private static func makeOnePiece<S: Storage>(
        _ structure: inout ImageStructure<S>, _ progress: (@Sendable (Double) -> Void)?
    ) async throws -> UInt64 {
        let before = try await survey(structure)
        let inUse = before.owners.ownedCount(in: 0..<before.owners.clusterCount)
        let away = try await CompactionRound(structure, cut: inUse, progress: progress).moveTablesAway(before.owners)
        structure.fileSizeBytes = away.fileSizeBytes
        let cut = inUse - away.tables * structure.geometry.tableSizeClusters
        let between = try await survey(structure)
        var moved = try await CompactionRound(structure, cut: cut, progress: progress).runForData(between.owners)
        try await structure.storage.sync()
        let last = try await survey(structure)
        moved += try await CompactionRound(structure, cut: cut, progress: progress).run(last.owners)
        _ = try await cutFile(&structure)
        return moved
    }

    /// Which clusters are in use. Every table has to be read for that.
    private static func survey<S: Storage>(_ structure: ImageStructure<S>) async throws -> CheckPass<S> {
        let pass = try CheckPass(structure, mode: .fast)
        try await pass.run()
        guard pass.report.isSound else {
            throw ImageOpenError.damaged(
                invalidEntries: pass.report.invalidEntries + pass.report.unreadableTables,
                crossLinkedClusters: pass.report.crossLinks)
        }
        guard pass.holes.inferredBytes == 0 else { throw ImageOpenError.tablesInHoles }
        return pass
    }

    /// Gives up what is behind the last cluster in use, once that is durable where it is now.
    /// - Returns: how many clusters in front of it are leaked.
    private static func cutFile<S: Storage>(_ structure: inout ImageStructure<S>) async throws -> UInt64 {
        try await structure.storage.sync()
        let pass = try await survey(structure)
        let outcome = try await LeakReclaim(structure: structure).run(pass)
        structure.fileSizeBytes = outcome.fileSizeBytes
        return outcome.punchedClusters
    }
}
