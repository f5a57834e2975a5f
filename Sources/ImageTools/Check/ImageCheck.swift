import BlockStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Checks the structure of an image, and repairs it as far as that is asked for.
public struct ImageCheck: Sendable {
    public enum Repair: Sendable, Equatable {
        case nothing
        /// Gives the space of leaked clusters back.
        case leaks
        /// And drops entries that cannot be right.
        case all
    }

    public struct Result: Sendable, Equatable {
        /// The image as it is now.
        public var report = CheckReport()
        /// Nil where no repair was asked for.
        public var repair: RepairReport?
    }

    public var path: String
    public var repair: Repair
    /// With `Repair.all`: gives each further owner of a shared cluster a copy of it.
    public var separatesCrossLinks: Bool
    /// Reads without a lock, beside a program that may be changing the image.
    public var sharing: Bool

    public init(path: String, repair: Repair = .nothing, separatesCrossLinks: Bool = false, sharing: Bool = false) {
        self.path = path
        self.repair = repair
        self.separatesCrossLinks = separatesCrossLinks
        self.sharing = sharing
    }

    /// Blocks until it is done. Repairs are durable then; one that is interrupted leaves an image that is no worse, and
    /// can be run again. The backing file is not needed, and not looked at.
    /// - Parameter progress: gets the share of the tables that have been read, for each pass.
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) -> Result {
        let image = try OfflineImage(
            path: path, access: repair == .nothing ? .readOnly : .readWrite, sharing: sharing)
        let before = image.allocatedBytes
        let structure = image.structure
        var result = try image.run { () async throws(ImageToolError) in
            do {
                return try await run(on: structure, progress: progress)
            } catch let error as StorageError {
                throw .storage(path: path, error)
            } catch let error as ImageOpenError {
                throw .open(path: path, error)
            } catch {
                preconditionFailure("an error of an unknown type: \(error)")
            }
        }
        let after = image.allocatedBytes
        result.repair?.reclaimedBytes = before > after ? before - after : 0
        return result
    }

    /// The same over any storage.
    func run<S: Storage>(
        on structure: ImageStructure<S>, progress: (@Sendable (Double) -> Void)? = nil
    ) async throws -> Result {
        let first = try CheckPass(structure, mode: .fast, progress: progress)
        try await first.run()
        if repair == .nothing {
            let report = first.report.corruptions == 0 ? first.report : try await exactReport(of: structure)
            return Result(report: report)
        }
        var structure = structure
        var done = RepairReport()
        if first.report.corruptions > 0 && repair == .all { try await repairEntries(&structure, &done) }
        // The list begins with the entries of the L1 table.
        let tablesWereDropped = done.droppedList.first?.isL1 ?? false
        var last = try CheckPass(structure, mode: .fast, progress: progress)
        try await last.run()
        if last.report.leakedClusters > 0 || structure.fileSizeBytes != last.report.imageEndFileOffset {
            if !last.report.isSound {
                done.leaksKept = last.report.leakedClusters > 0 ? .damaged : nil
            } else if tablesWereDropped {
                done.leaksKept = last.report.leakedClusters > 0 ? .tablesDropped : nil
            } else {
                try await structure.clearAutoclearBitsDurably()
                let outcome = try await LeakReclaim(structure: structure).run(last.owners)
                done.removedClusters = outcome.removedClusters
                done.punchedClusters = outcome.punchedClusters
                structure.fileSizeBytes = outcome.fileSizeBytes
                last = try CheckPass(structure, mode: .fast)
                try await last.run()
            }
        }
        if last.report.isSound && structure.header.needsCheck {
            try await structure.storage.sync()
            structure.header.needsCheck = false
            try await structure.writeHeader()
            try await structure.storage.sync()
        }
        var final = last.report.corruptions == 0 ? last.report : try await exactReport(of: structure)
        final.needsCheck = structure.header.needsCheck
        return Result(report: final, repair: done)
    }

    /// A pass that lists what is wrong, with all owners of what is shared.
    private func exactReport<S: Storage>(of structure: ImageStructure<S>) async throws -> CheckReport {
        let pass = try CheckPass(structure, mode: .exact(dropsInvalidEntries: false))
        try await pass.run()
        var report = pass.report
        report.crossLinkList = try await CrossLinkSearch(structure: structure).run(pass.twiceOwned)
        return report
    }

    private func repairEntries<S: Storage>(
        _ structure: inout ImageStructure<S>, _ done: inout RepairReport
    ) async throws {
        try await structure.clearAutoclearBitsDurably()
        let dropping = try await dropInvalidEntries(structure, &done)
        guard separatesCrossLinks, dropping.report.crossLinks > 0 else { return }
        done.separatedList = try await CrossLinkSearch(structure: structure).run(dropping.twiceOwned)
        var separation = try CrossLinkRepair(structure, unjudgedTables: dropping.unjudgedTables)
        let outcome = try await separation.run()
        done.separatedClusters = outcome.separatedClusters
        done.droppedEntries += outcome.droppedEntries
        done.droppedList += outcome.droppedList
        structure.fileSizeBytes = outcome.fileSizeBytes
        // Tables that shared their clusters were not looked into before.
        _ = try await dropInvalidEntries(structure, &done)
    }

    private func dropInvalidEntries<S: Storage>(
        _ structure: ImageStructure<S>, _ done: inout RepairReport
    ) async throws -> CheckPass<S> {
        let pass = try CheckPass(structure, mode: .exact(dropsInvalidEntries: true))
        try await pass.run()
        try await structure.storage.sync()
        done.droppedEntries += pass.report.invalidEntries
        done.droppedList += pass.report.invalidList
        return pass
    }
}
