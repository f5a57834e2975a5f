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

    /// Cross-links are separated where their copies have at most this many times the clusters that are in use.
    public static let largestGrowth: UInt64 = 4

    public var path: String
    public var repair: Repair
    /// With `Repair.all`: gives each further owner of a shared cluster a copy of it.
    public var separatesCrossLinks: Bool
    /// Reads without a lock, beside a program that may be changing the image.
    public var sharing: Bool
    /// Repairs even what a dead server has left unfinished: see `ImageOptions.discardsLostSession`.
    public var discardsLostSession = false

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
            path: path, access: repair == .nothing ? .readOnly : .readWrite, sharing: sharing,
            discardsLostSession: discardsLostSession)
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
        // As every program that opens an image for writing, whether it finds something to write or not.
        try await structure.clearAutoclearBitsDurably()
        var done = RepairReport()
        if first.report.corruptions > 0 && repair == .all {
            try await repairEntries(&structure, &done)
            // Whole sectors were written, so a file that ended inside of one may be longer now; with copies it is.
            structure.fileSizeBytes = try await structure.storage.length()
        }
        // The list begins with the entries of the L1 table.
        let tablesWereDropped = done.droppedList.first?.isL1 ?? false
        var last = try CheckPass(structure, mode: .fast, progress: progress)
        try await last.run()
        if last.report.leakedClusters > 0 || structure.fileSizeBytes != last.report.imageEndFileOffset {
            if !last.report.isSound {
                done.leaksKept = last.report.leakedClusters > 0 ? .damaged : nil
            } else if tablesWereDropped {
                done.leaksKept = last.report.leakedClusters > 0 ? .tablesDropped : nil
            } else if last.holes.inferredBytes > 0 {
                done.leaksKept = last.report.leakedClusters > 0 ? .tablesInHoles : nil
            } else {
                let outcome = try await LeakReclaim(structure: structure).run(last)
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
        var (shared, dropping) = try await dropEntries(structure, &done)
        // Where the L1 table shares clusters with an L2 table, that has other entries now: fewer clusters are shared, and
        // tables can be changed that were spared. Those share nothing, so after them all is as it stays.
        if dropping.dropped.count > 0 && shared.furtherOwners > 0 {
            (shared, dropping) = try await dropEntries(structure, &done)
        }
        guard separatesCrossLinks, shared.furtherOwners > 0 else { return }
        let inUse = dropping.owners.ownedCount(in: 0..<dropping.owners.clusterCount)
        guard shared.furtherOwners <= inUse * ImageCheck.largestGrowth else {
            done.crossLinksKept = true
            return
        }
        done.separatedList = try await CrossLinkSearch(structure: structure).run(dropping.twiceOwned)
        var separation = try CrossLinkRepair(structure, shared)
        let dropped = try await separation.run()
        done.separatedClusters = shared.furtherOwners
        done.note(dropped)
    }

    /// Sets entries that cannot be right to 0, durably.
    /// - Returns: the clusters that had several owners before, and what was found meanwhile.
    private func dropEntries<S: Storage>(
        _ structure: ImageStructure<S>, _ done: inout RepairReport
    ) async throws -> (SharedClusters<S>, CheckPass<S>) {
        // Before any entry is dropped: what shares a cluster with a table may be data, and is not to be changed.
        let shared = try SharedClusters(structure)
        try await shared.find()
        let dropping = try CheckPass(structure, mode: .exact(dropsInvalidEntries: true), sparing: shared)
        try await dropping.run()
        try await structure.storage.sync()
        done.note(dropping.dropped)
        return (shared, dropping)
    }
}

extension RepairReport {
    fileprivate mutating func note(_ dropped: InvalidEntries) {
        droppedEntries += dropped.count
        droppedList += dropped.list
    }
}
