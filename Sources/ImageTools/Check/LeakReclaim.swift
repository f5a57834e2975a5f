import BlockStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Gives the space of leaked clusters back: those at the end of the file are cut off, those between others become
/// holes.
///
/// Only for an image whose tables have all been read and followed. Interrupted at any point it has changed nothing that anybody
/// refers to.
struct LeakReclaim<S: Storage> {
    let structure: ImageStructure<S>

    struct Outcome: Sendable {
        var removedClusters: UInt64 = 0
        var punchedClusters: UInt64 = 0
        var fileSizeBytes: UInt64 = 0
    }

    /// - Parameter pass: one that found nothing worse than leaks.
    func run(_ pass: CheckPass<S>) async throws(StorageError) -> Outcome {
        precondition(pass.report.isSound && pass.holes.inferredBytes == 0, "leaks of an image that is not all known")
        var outcome = Outcome(fileSizeBytes: structure.fileSizeBytes)
        let shift = structure.geometry.clusterShift
        let end = pass.owners.end << shift
        if end != structure.fileSizeBytes {
            // The dropped entries of this run, if any, must be gone for good before their clusters are.
            try await structure.storage.sync()
            try await structure.storage.setLength(end)
            outcome.removedClusters = pass.owners.clusterCount - pass.owners.end
            outcome.fileSizeBytes = end
        }
        var next = structure.header.headerSizeClusters
        while let run = pass.owners.firstUnowned(from: next), run.lowerBound < pass.owners.end {
            do throws(StorageError) {
                try await structure.storage.punchHole(
                    fileOffset: run.lowerBound << shift, byteCount: UInt64(run.count) << shift)
            } catch {
                // A file system without holes keeps the space: they are leaks as before.
                guard error.errno == .notSupported else { throw error }
                break
            }
            outcome.punchedClusters += UInt64(run.count)
            if !isSabotaged(.reclaimInCircles) { next = run.upperBound }
        }
        try await structure.storage.sync()
        return outcome
    }
}
