import BlockStorage
import QEDEngine
import QEDFormat

/// Moves clusters from the end of an image into clusters that nothing refers to, and cuts the file.
///
/// A copy is durable before the entry that names it is written, and entries are durable before the old place is given up.
/// So at a power cut every entry names the old place or the new one, and both hold the same; the rest are leaks, which the
/// next run uses.
public struct ImageCompaction: Sendable {
    public struct Outcome: Sendable, Equatable {
        public var movedClusters: UInt64 = 0
        public var fileSizeBytesBefore: UInt64 = 0
        public var fileSizeBytes: UInt64 = 0
    }

    public var path: String

    public init(path: String) { self.path = path }

    /// Tables are moved only where all of their clusters lie together; what they leave behind serves the next round.
    private static let roundLimit = 8

    /// Blocks until it is durable. The backing file is not needed.
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) -> Outcome {
        let image = try OfflineImage.sound(path: path)
        return try image.edit { structure in
            var outcome = Outcome(fileSizeBytesBefore: structure.fileSizeBytes)
            for _ in 0..<ImageCompaction.roundLimit {
                let pass = try CheckPass(structure, mode: .fast)
                try await pass.run()
                let round = CompactionRound(structure, pass.owners, progress: progress)
                let moved = try await round.run(pass.owners)
                outcome.movedClusters += moved
                // Only what is durable elsewhere is given up.
                try await structure.storage.sync()
                let after = try CheckPass(structure, mode: .fast)
                try await after.run()
                structure.fileSizeBytes = try await LeakReclaim(structure: structure).run(after.owners).fileSizeBytes
                if moved == 0 || after.report.leakedClusters == 0 { break }
            }
            outcome.fileSizeBytes = structure.fileSizeBytes
            return outcome
        }
    }
}
