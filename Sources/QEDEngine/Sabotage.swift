/// Faults that the simulation, or fuzzing, plants in the engine and the tools, one at a time, to prove that it would find
/// them.
///
/// Compiled in only with `QED_SABOTAGE` (an environment variable of the package's build); in every other build
/// `isSabotaged` is the constant false and costs nothing.
public enum Sabotage: String, CaseIterable, Sendable {
    /// After a switch of the top, the new one is committed before the old one.
    case commitTopFirst
    /// And before the names of both files are durable.
    case forgetNames
    /// The pages of the chain are not told when the top gets a cluster.
    case forgetResolvedEntry
    /// What is read of a table goes over what has changed there since.
    case mergeOverChange
    /// Entries of filled clusters are written without a sync after their data.
    case skipSyncBeforeEntries
    /// The live page is written, with entries whose data is not durable.
    case writeLivePage
    /// L1 entries of new tables are never written.
    case forgetL1Entry
    /// The new length is used before it is durable.
    case skipSyncAfterExtension
    /// Clusters are handed out past the durable end.
    case reservePastDurableEnd
    /// The clusters of a failed fill are published all the same.
    case publishFailedFill
    /// NEED_CHECK is not cleared by a trim.
    case keepNeedCheck
    /// A changed page is not marked dirty when it was written before.
    case forgetDirtyPage
    /// A page that changes while it is written counts as clean.
    case forgetChangeDuringWrite
    /// A flush that finds a commit running is answered without waiting.
    case flushIgnoresRunningCommit
    /// A flush that finds a commit running shares that one.
    case flushJoinsRunningCommit
    /// The waiters of a fill are not resumed.
    case dropFillWaiters
    /// Those who share a commit are not resumed.
    case dropCommitFollowers
    /// The result of a page write is not looked at.
    case ignorePageWriteError
    /// A failed sync is forgotten by the next flush.
    case noLatchAfterFailedSync
    /// Pages that could not be written are not written again.
    case forgetUnwrittenPages
    /// Pages that could not be written can be evicted before they are marked again.
    case evictUnwrittenPages
    /// A fill leaves out what lies behind the data.
    case fillWithoutTail
    /// A fill leaves out what lies in front of the data.
    case fillWithoutHead
    /// Whole clusters over backing data are allocated without a fill's ordering.
    case fillIsFresh
    /// The file is cut below clusters that are being filled.
    case trimTooShort
    /// Entries are changed while a trim marks the image as clean.
    case changeBesideTrim
    /// Zeroing a cluster over backing data leaves its entry 0.
    case skipZeroOverBacking
    /// The mark that says that a sync is needed is not set by writes in place.
    case forgetUnsyncedMark
    /// Dirty pages are evicted.
    case evictDirtyPages
    /// Zeroing in place punches one sector too many.
    case punchTooMuch
    /// A fill's entries count as sealed by a sync that began before its data was written.
    case sealBySyncInFlight
    /// A sync takes the mark away when it ends, with the marks of what completed meanwhile.
    case clearMarkAfterSync
    /// Those who wait for a page are not resumed.
    case dropPageWaiters
    /// Tables whose L1 entries could not be written are no reason to commit, and a commit wakes nobody who waits for room.
    case overlookUnwrittenTables
    /// FUA is ignored.
    case ignoreFUA
    /// The last sync of a commit is left out.
    case skipFinalSync
    /// A short transfer counts as whole.
    case acceptShortTransfer
    /// Some changes of entries are not recorded in the mapping log.
    case forgetLogRecord
    /// New tables are not recorded in the mapping log.
    case forgetTableRecord
    /// A record of the mapping log counts before all of it is there.
    case recordCountsTooSoon
    /// Records that fills will need are not kept free.
    case ignoreLogReservations
    /// A commit marks records as covered before it has written anything.
    case commitMarkFirst
    /// A commit marks as covered what was recorded while it ran.
    case commitMarkTooFar
    /// A replay counts as done before it has begun.
    case commitReplayFirst
    /// A replay makes the oldest change last.
    case replayNewestFirst
    /// A replay writes entries whose data is not durable.
    case replayWithoutDataSync
    /// A log that has survived a power cut is replayed.
    case believeEveryBoot
    /// A failed sync is not noted in the mapping log.
    case forgetLoss
    /// Nor is one that fails while a log is replayed.
    case forgetLossInReplay
    /// A replay publishes filled clusters whose data a failed sync may have lost.
    case publishLostFills
    /// Entries of filled clusters are recorded as if they were fresh.
    case recordFillAsFresh
    /// The next process goes on with the note that a sync has failed.
    case keepLoss
    /// A replay does not write tables again that read as they should.
    case trustReadableTables
    /// What an earlier process has written counts as durable.
    case trustEarlierWrites
    /// A FUA write is written again before it is committed.
    case writeForcedUnitsTwice
    /// What the file system calls a hole in a table is not read before clusters are given up.
    case believeHoles
    /// A queue says that it is quiet while its housekeeping is under way.
    case quietBesideHousekeeping

    /// A new backing file's name is written with the header that names it.
    case nameWithHeader
    /// A disk grows, and what lies there already is seen.
    case growWithoutZeros

    /// The header forgets the backing file before what was copied out of it is durable.
    case flattenHeaderFirst
    /// What lies beneath a cluster is written to it whatever it has got meanwhile.
    case copyUpOverNewer
    /// What is kept of a read is read first, and then written as a guest would.
    case keepReadsOverNewer
    /// The same of what is fetched.
    case fetchOverNewer
    /// What is kept of a read of several clusters goes over those that were made zeros as well.
    case keepOverZeros
    /// A cluster of which nobody knows yet what lies beneath it is taken for zeros.
    case copyUpSkipsUnknown

    // Of images that nobody sound has written: for fuzzing to find.

    /// The entries of a table are used as they are.
    case trustTableEntries
    /// Clusters with several owners are not seen when an image is opened.
    case overlookCrossLinks
    /// Memory is taken for what the header says, not for what there is.
    case trustImageSize
    /// An entry is taken for a number with a sign.
    case signedEntry
    /// The last table is not repaired.
    case skipTable
    /// The next leak is looked for where the last one was.
    case reclaimInCircles

    /// The faults for fuzzing; all others are the simulation's.
    public static let hostile: [Sabotage] = [
        .trustTableEntries, .overlookCrossLinks, .trustImageSize, .signedEntry, .skipTable, .reclaimInCircles,
    ]

    #if QED_SABOTAGE
    // SAFETY: set once, before the engine runs.
    nonisolated(unsafe) public static var active: Sabotage?
    #endif
}

@inlinable @inline(__always)
package func isSabotaged(_ fault: Sabotage) -> Bool {
    #if QED_SABOTAGE
    return Sabotage.active == fault
    #else
    return false
    #endif
}
