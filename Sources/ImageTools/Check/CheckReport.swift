import QEDFormat

/// What a check has found. Counts are exact; what is listed is bounded, because a hostile image can have any number of
/// faults.
public struct CheckReport: Sendable, Equatable {
    /// Clusters of the device, and how many of them have an entry that names a cluster of the file.
    public var totalClusters: UInt64 = 0
    public var allocatedClusters: UInt64 = 0
    /// Allocated clusters that do not follow, in the file, the one before them in their table.
    public var fragmentedClusters: UInt64 = 0
    /// File offset of the end of the last cluster in use.
    public var imageEndFileOffset: UInt64 = 0
    /// Length of the file.
    public var fileSizeBytes: UInt64 = 0
    /// Entries that cannot be right.
    public var invalidEntries: UInt64 = 0
    /// How often a cluster was named that had an owner already.
    public var crossLinks: UInt64 = 0
    /// Clusters inside the file that nothing refers to.
    public var leakedClusters: UInt64 = 0
    /// Tables that could not be read.
    public var unreadableTables: UInt64 = 0
    public var needsCheck = false
    /// Where the file ends inside clusters that entries name: the length at which these would be whole. A repair drops
    /// them, with what is left of them.
    public var fileSizeToKeepCutClusters: UInt64?

    /// Lists of at most `CheckReport.listLimit` elements.
    public var invalidList: [InvalidEntry] = []
    public var crossLinkList: [CrossLink] = []

    public static let listLimit = 1000

    /// Faults that can hurt, as QEMU counts them.
    public var corruptions: UInt64 { invalidEntries + crossLinks }
    public var isSound: Bool { corruptions == 0 && unreadableTables == 0 }
}

/// A cluster of the file with several owners.
public struct CrossLink: Sendable, Equatable {
    public var fileOffset: UInt64
    public var owners: [ClusterOwner]
}

/// What a cluster of the file is used for.
public enum ClusterOwner: Sendable, Equatable, CustomStringConvertible {
    case header
    case l1Table
    case l2Table(l1Index: Int)
    case data(deviceOffset: UInt64)

    public var description: String {
        switch self {
        case .header: "the header"
        case .l1Table: "the L1 table"
        case .l2Table(let l1Index): "L2 table \(l1Index)"
        case .data(let deviceOffset): "guest offset \(deviceOffset)"
        }
    }
}

/// What a repair has done.
public struct RepairReport: Sendable, Equatable {
    /// Entries that could not be right and were set to 0.
    public var droppedEntries: UInt64 = 0
    public var droppedList: [InvalidEntry] = []
    /// Clusters that had several owners, and of which each further owner got a copy.
    public var separatedClusters: UInt64 = 0
    public var separatedList: [CrossLink] = []
    /// Shared clusters were left alone although their separation was asked for: it would have made copies without end.
    public var crossLinksKept = false
    /// Leaked clusters at the end of the file that were cut off.
    public var removedClusters: UInt64 = 0
    /// Leaked clusters between others whose space went back to the file system; they stay leaked.
    public var punchedClusters: UInt64 = 0
    public var reclaimedBytes: UInt64 = 0
    /// Why leaked clusters were left alone although their removal was asked for.
    public var leaksKept: LeaksKept?

    public enum LeaksKept: Sendable, Equatable {
        /// Corruption remains: what looks leaked may belong to a table that could not be followed.
        case damaged
        /// Tables were dropped in this run: what looks leaked may have been theirs.
        case tablesDropped
        /// So much of the tables is holes of the file that not all of it was read: what looks leaked may be named there.
        case tablesInHoles
    }
}
