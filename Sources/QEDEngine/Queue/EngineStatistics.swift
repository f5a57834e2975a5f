/// What a queue has asked of its storage, by purpose. Counted by the queue's thread.
public struct EngineStatistics: Equatable, Sendable {
    /// Of guest data, from the image and the backing chain.
    public var dataReads: UInt64 = 0
    public var dataWrites: UInt64 = 0
    /// Copies from the backing chain into new clusters, and the clusters that they filled.
    public var fills: UInt64 = 0
    public var filledClusters: UInt64 = 0
    public var l2PageReads: UInt64 = 0
    public var l2PageWrites: UInt64 = 0
    /// Entries that the written pages changed.
    public var l2EntriesWritten: UInt64 = 0
    public var l1PieceWrites: UInt64 = 0
    public var headerWrites: UInt64 = 0
    public var syncs: UInt64 = 0
    public var extensions: UInt64 = 0
    public var commits: UInt64 = 0
    /// Requests that a task had to finish.
    public var slowRequests: UInt64 = 0

    /// Of the data reads and writes: with a registered buffer.
    public var registeredTransfers: UInt64 = 0
    /// Requests with a registered buffer whose data was needed in memory.
    public var borrowedRequests: UInt64 = 0

    /// Clusters that the image's data has got: fresh ones, and those that copies have filled.
    public var allocatedClusters: UInt64 = 0
    /// New L2 tables.
    public var allocatedTables: UInt64 = 0
    /// What those clusters and tables take in the image's file.
    public var allocatedBytes: UInt64 = 0

    /// Pages of the image's L2 tables that were not in memory, and were read for somebody.
    public var pageLoads: UInt64 = 0
    /// Pages of the chain that were not in memory, and were made: each from as many L2 pages as it takes (`l2PageReads`).
    public var chainPageLoads: UInt64 = 0
    /// Reads and writes, each counted once, that had to wait for a page of either kind, whoever has loaded it. All others that
    /// were started found what they needed in memory: so nothing is counted for them.
    public var pageMisses: UInt64 = 0

    /// How long commits took, from when they had gathered the flushes that they are for, and the syncs of the image's file,
    /// whatever they were for. Those that failed are among them.
    public var commitTimes = Durations()
    public var syncTimes = Durations()

    public init() {}

    /// Clusters have their places in the image from now on.
    @inline(__always)
    mutating func countAllocation(clusters: UInt64, bytes: UInt64) {
        allocatedClusters &+= clusters
        allocatedBytes &+= bytes
    }

    mutating func countTable(bytes: UInt64) {
        allocatedTables &+= 1
        allocatedBytes &+= bytes
    }

    /// What was asked of the storage, and what came of it, with names for output. What is said of pages, and the times, are
    /// figures of their own.
    public var counters: [(name: String, value: UInt64)] {
        [
            ("data-reads", dataReads), ("data-writes", dataWrites), ("fills", fills),
            ("filled-clusters", filledClusters), ("l2-page-reads", l2PageReads), ("l2-page-writes", l2PageWrites),
            ("l2-entries-written", l2EntriesWritten), ("l1-piece-writes", l1PieceWrites),
            ("header-writes", headerWrites), ("fsyncs", syncs), ("extensions", extensions), ("commits", commits),
            ("slow-requests", slowRequests), ("registered-transfers", registeredTransfers),
            ("borrowed-requests", borrowedRequests), ("allocated-clusters", allocatedClusters),
            ("allocated-tables", allocatedTables), ("allocated-bytes", allocatedBytes),
        ]
    }
}
