import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// Commits: what makes completed writes survive a power cut.
///
/// 1. Where entries wait for their data (filled clusters), a sync.
/// 2. The dirty L2 pages, as far as their entries are sealed, all at once, and the L1 entries of new tables.
/// 3. A sync.
///
/// An L1 entry may be durable before its table: new tables lie in space that was made part of the file, durably, before it
/// was handed out, and reads as a table of zeros until something is written to it.
///
/// Entries of fresh clusters need no sync in front of them: until the data is there they read as the zeros that were there
/// before. So an image without a backing file pays one sync for a flush, however many clusters it covers.
final class Committer<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone; what the queues share is behind the image's lock, and the staging memory
    // belongs to the leader of the running commit.
    private let files: QueueFiles<S>
    private let transfers: Transfers<S>
    /// Of the writes of pages: one commit runs at a time, so nobody else's are among them.
    private let group: TransferGroup
    private let tasks: QueueTasks
    /// Where the pages go that are being written. Its memory is kept.
    private var pageOffsets: [UInt64] = []
    /// Of what was the top before: it comes first, as long as the image has a `topSwitch`.
    var below: Committer<S>?
    private var image: Image { files.image }
    private var top: S { files.top }

    init(
        files: QueueFiles<S>, transfers: Transfers<S>, group: TransferGroup, tasks: QueueTasks, below: Committer<S>?
    ) {
        self.below = below
        self.files = files
        self.transfers = transfers
        self.group = group
        self.tasks = tasks
        pageOffsets.reserveCapacity(Image.commitStagingPages)
        precondition(transfers.isIdle(group), "the commit's transfers are somebody else's")
    }

    /// Whether everything that was acknowledged is durable already, and no commit is under way.
    var nothingToFlush: Bool {
        if let topSwitch = image.topSwitch, !topSwitch.isSettled { return false }
        // In this order: a sync first counts itself, then takes the mark away.
        if image.isUnsynced.load(ordering: .sequentiallyConsistent) { return false }
        if isSabotaged(.flushIgnoresRunningCommit), image.state.withLock({ !$0.commit.isIdle }) { return true }
        return image.state.withLock { $0.commit.isIdle && $0.syncs.isIdle && !$0.hasDirtyMetadata }
    }

    /// Returns when everything that was completed before the call is durable.
    func commit() async throws(RequestError) {
        precondition(!image.isReadOnly, "a commit of an image that is only read")
        if let failure = image.failure { throw failure }
        let answer = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let (role, leader) = image.state.withLock { ($0.commit.join(continuation), $0.commit.gathered()) }
            if role == .lead { continuation.resume(returning: CommitAnswer.lead) }
            leader?.resume(returning: 0)
        }
        switch answer {
        case CommitAnswer.lead:
            await gatherFlushes()
            let began = top.nanoseconds
            let result: Int32
            do throws(RequestError) {
                try await runCommit(began)
                result = CommitAnswer.done
            } catch {
                result = -error.errno.rawValue
            }
            let now = top.nanoseconds
            files.counters.pointee.commitTimes.record(nanoseconds: now &- began)
            precondition(transfers.isIdle(group), "a commit ends with pages on their way")
            // Whoever waits for a page or a record looks again: there may be some, or there is a reason to commit once more.
            let (outcome, slotWaiters) = image.state.withLock { state in
                (
                    state.commit.commitEnded(now: now),
                    isSabotaged(.overlookUnwrittenTables) ? [] : state.takeSlotWaiters()
                )
            }
            for waiter in outcome.finished { waiter.resume(returning: result) }
            for waiter in slotWaiters { waiter.resume(returning: 0) }
            outcome.nextLeader?.resume(returning: CommitAnswer.lead)
            guard result >= 0 else { throw image.failure ?? .storage(Errno(rawValue: -result)) }
        case CommitAnswer.done:
            return
        default:
            throw image.failure ?? .storage(Errno(rawValue: -answer))
        }
    }

    /// The leader's wait for those who will flush any moment.
    private func gatherFlushes() async {
        let now = top.nanoseconds
        // The queue may be stopping while one that has taken over from it commits for both: no timer is begun then.
        guard !tasks.isStopping, let time = image.state.withLock({ $0.commit.gatheringNanoseconds(now: now) }) else { return }
        precondition(time > 0, "a wait for nobody")
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            // Since they were counted the others may have come.
            let (number, leader) = image.state.withLock { ($0.commit.gather(continuation), $0.commit.gathered()) }
            if let leader {
                leader.resume(returning: 0)
            } else {
                endGathering(number, after: time)
            }
        }
    }

    private func endGathering(_ number: UInt64, after time: UInt64) {
        tasks.start {
            await self.top.pause(nanoseconds: time)
            let leader = self.image.state.withLock { $0.commit.gatheringTimedOut(number) }
            leader?.resume(returning: 0)
        }
    }

    private func runCommit(_ now: UInt64) async throws(RequestError) {
        precondition(!image.isReadOnly && transfers.isIdle(group), "a commit beside another, or of an image that is only read")
        files.counters.pointee.commits &+= 1
        image.state.withLock { $0.commit.begin(now: now) }
        try await settleSwitch()
        let (pageCount, logged, waitsForData) = try image.state.withLock { state throws(RequestError) in
            if let failure = image.failure { throw failure }
            state.cache.beginCommit()
            return (
                state.cache.unwrittenCount, state.log?.lastSequence,
                state.cache.commitWaits(forSyncAfter: state.syncs.completed)
            )
        }
        if isSabotaged(.commitMarkFirst), let logged { image.state.withLock { $0.log?.commit(through: logged) } }
        do throws(RequestError) {
            if waitsForData && !isSabotaged(.skipSyncBeforeEntries) { try await sync() }
            var unwritten = pageCount
            while unwritten > 0 {
                let count = min(unwritten, Image.commitStagingPages)
                try await writePages(count)
                unwritten -= count
            }
        } catch {
            #if QED_SABOTAGE
            if isSabotaged(.evictUnwrittenPages) {
                let pages = image.state.withLock { $0.cache.sabotageBeginFailure() }
                await top.pause(nanoseconds: 1)
                image.state.withLock { $0.cache.sabotageEndFailure(pages) }
            }
            #endif
            // Nothing is lost: the next commit tries again.
            image.state.withLock { $0.cache.commitFailed() }
            throw error
        }
        try await writeL1Entries()
        // A sync that somebody else has begun (for an extension) may have been too early for what we have to cover.
        let isCovered = image.state.withLock { $0.syncs.isIdle } && !image.isUnsynced.load(ordering: .acquiring)
        if (pageCount > 0 || !isCovered) && !isSabotaged(.skipFinalSync) { try await sync() }
        if let logged {
            image.state.withLock { state in
                let last = isSabotaged(.commitMarkTooFar) ? state.log?.lastSequence ?? logged : logged
                state.log?.commit(through: last)
            }
        }
    }

    /// What was the top before, and the names of both files, are durable before anything of this image is.
    func settleSwitch() async throws(RequestError) {
        guard let topSwitch = image.topSwitch, !topSwitch.isSettled, let below else { return }
        do throws(RequestError) {
            try await topSwitch.settle(on: top) { () async throws(RequestError) in
                if !below.nothingToFlush { try await below.commit() }
            }
        } catch {
            noteFailureBelow()
            throw error
        }
        precondition(topSwitch.isSettled, "a top that may be durable before what it lies over")
    }

    /// What a failed sync of the image beneath has lost, this one shows: nothing is promised any more here either.
    func noteFailureBelow() {
        guard let errno = image.lower?.failedSync else { return }
        image.latchedFailure.store(errno.rawValue, ordering: .sequentiallyConsistent)
    }

    /// Writes snapshots of the commit's next pages, up to `commitStagingPages`, all at once. When it throws they still count as
    /// being written, until `commitFailed`.
    private func writePages(_ count: Int) async throws(RequestError) {
        precondition(count > 0 && count <= Image.commitStagingPages, "no pages, or more than there is room for")
        files.counters.pointee.l2PageWrites &+= UInt64(count)
        pageOffsets.removeAll(keepingCapacity: true)
        image.state.withLock { state in
            for position in 0..<count {
                let page = state.cache.unwrittenPage(position)
                files.counters.pointee.l2EntriesWritten &+= UInt64(state.cache.takeChangeCount(page))
                state.cache.snapshot(page, completedSync: state.syncs.completed, into: stagingAddress(position))
                guard let offset = image.top.fileOffset(ofPage: state.cache[page].page) else {
                    preconditionFailure("a dirty page without a table")
                }
                // Before it goes to the disk: to a table in space that is the file's for certain, and never over its header.
                precondition(
                    offset >= image.geometry.clusterSizeBytes && offset % UInt64(QEDGeometry.l2PageSizeBytes) == 0
                        && offset < state.cursor.durableEnd, "a page of a table outside the file")
                pageOffsets.append(offset)
            }
        }
        var failure: RequestError?
        let pageBytes = UInt32(QEDGeometry.l2PageSizeBytes)
        precondition(transfers.isIdle(group), "two commits at once")
        for position in 0..<count {
            transfers.startTableWrite(
                group, stagingAddress(position), byteCount: pageBytes, fileOffset: pageOffsets[position])
        }
        await transfers.finished(group)
        if transfers.takeFailure(group) && !isSabotaged(.ignorePageWriteError) {
            do throws(RequestError) {
                for position in 0..<count {
                    try await files.write(
                        stagingAddress(position), byteCount: Int(pageBytes), fileOffset: pageOffsets[position])
                }
            } catch {
                failure = error
            }
        }
        files.markUnsynced()
        if let failure { throw failure }
        image.state.withLock { $0.cache.snapshotsWritten(count) }
    }

    private func stagingAddress(_ position: Int) -> UnsafeMutableRawPointer {
        precondition(position >= 0 && position < Image.commitStagingPages, "outside the staging memory")
        return image.commitStaging + position * QEDGeometry.l2PageSizeBytes
    }

    /// Writes the L1 entries of tables made since the last commit.
    private func writeL1Entries() async throws(RequestError) {
        let indexes = image.state.withLock { state in
            let indexes = state.unwrittenL1Indexes
            state.unwrittenL1Indexes = []
            return indexes
        }
        guard !indexes.isEmpty else { return }
        precondition(
            indexes.allSatisfy { image.top.tableWord($0) != .unallocated }, "an L1 entry is written of a table that is none")
        do throws(RequestError) {
            var written: Set<Int> = []
            for index in indexes {
                let piece = index / QEDGeometry.entriesPerL2Page
                if !written.insert(piece).inserted { continue }
                files.counters.pointee.l1PieceWrites &+= 1
                try await writeL1Piece(piece)
            }
        } catch {
            image.state.withLock { $0.unwrittenL1Indexes.append(contentsOf: indexes) }
            throw error
        }
    }

    /// Writes 4 KiB of the L1 table. Entries beyond those that the image's size needs are nobody's, and stay: where the
    /// piece has any, they are read from the file first.
    private func writeL1Piece(_ piece: Int) async throws(RequestError) {
        let fileOffset = image.top.header.l1TableFileOffset + UInt64(piece * QEDGeometry.l2PageSizeBytes)
        let first = piece * QEDGeometry.entriesPerL2Page
        let needed = image.geometry.requiredL1Entries(imageSizeBytes: image.sizeBytes)
        let held = min(QEDGeometry.entriesPerL2Page, needed - first)
        precondition(held > 0, "a piece of the L1 table that is not held")
        let buffer = image.commitStaging
        if held < QEDGeometry.entriesPerL2Page {
            do throws(StorageError) {
                try await top.readFully(
                    into: buffer, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
            } catch {
                throw .storage(error.errno)
            }
        }
        image.state.withLock { _ in
            for index in 0..<held {
                buffer.storeBytes(
                    of: image.top.l1Value(first + index).littleEndian, toByteOffset: index * 8, as: UInt64.self)
            }
        }
        try await files.write(buffer, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
    }

    /// Makes durable what was completed before. A failure is latched: what the disk holds is unknown from then on.
    func sync() async throws(RequestError) {
        let answer = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let role = image.state.withLock { $0.syncs.join(continuation) }
            if role == .lead { continuation.resume(returning: CommitAnswer.lead) }
        }
        if answer == CommitAnswer.lead {
            // The latch first: whoever waits is told by it.
            let failure = await syncFile()
            let outcome = image.state.withLock { state in
                precondition(!state.syncs.isIdle, "a sync ends that nobody leads")
                if failure == nil { state.log?.syncSucceeded() }
                return state.syncs.ended(succeeded: failure == nil)
            }
            for waiter in outcome.finished { waiter.resume(returning: CommitAnswer.done) }
            outcome.nextLeader?.resume(returning: CommitAnswer.lead)
            if let failure { throw failure }
        }
        if let failure = image.failure { throw failure }
    }

    /// The leader's part of a sync.
    private func syncFile() async -> RequestError? {
        precondition(!image.isReadOnly, "a sync of an image that is only read")
        // Counted first, then the mark: see `nothingToFlush`.
        image.state.withLock { state in
            _ = state.syncs.begin()
            state.log?.syncBegan()
        }
        if let failure = image.failure { return failure }
        files.counters.pointee.syncs &+= 1
        if !isSabotaged(.clearMarkAfterSync) { image.isUnsynced.store(false, ordering: .sequentiallyConsistent) }
        let began = top.nanoseconds
        defer { files.counters.pointee.syncTimes.record(nanoseconds: top.nanoseconds &- began) }
        do throws(StorageError) {
            try await top.sync()
        } catch {
            // In the log before the latch: once somebody can know of the failure, nobody may trust what it has lost.
            if !isSabotaged(.forgetLoss) { image.state.withLock { $0.log?.syncFailed() } }
            if !isSabotaged(.noLatchAfterFailedSync) {
                image.latchedFailure.store(error.errno.rawValue, ordering: .sequentiallyConsistent)
            }
            image.isUnsynced.store(true, ordering: .sequentiallyConsistent)
            return .storage(error.errno)
        }
        if isSabotaged(.clearMarkAfterSync) { image.isUnsynced.store(false, ordering: .sequentiallyConsistent) }
        return nil
    }
}

/// What a task that joined a commit or a sync is resumed with, besides negative errnos.
private enum CommitAnswer {
    static let done: Int32 = 0
    static let lead: Int32 = 1
}
