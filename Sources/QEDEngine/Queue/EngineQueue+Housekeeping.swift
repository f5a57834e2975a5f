import BlockStorage
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// What has to be done now and then, by one queue's housekeeping task.
struct Housekeeping {
    var wantsCommit = false
    var wantsExtension = false
    var wantsTrim = false
    var isRunning = false
    /// When this queue first saw that something is not durable; 0: everything is. Milliseconds.
    var dirtySince: UInt64 = 0
}

/// The background commit, extension ahead, and giving back what was extended in vain.
extension EngineQueue {
    /// How long acknowledged writes may stay volatile when nobody flushes.
    static var commitDelayMilliseconds: UInt64 { 5_000 }
    /// How long after the last change of an entry the image is trimmed and marked as clean.
    static var trimDelayMilliseconds: UInt64 { 5_000 }

    /// Looks at the time. Called about once a second by the owner of one queue of the image.
    /// - Parameter now: milliseconds of a clock that does not go back; more than 0.
    public func tick(_ now: UInt64) {
        guard !image.isReadOnly, image.failure == nil else { return }
        let isClean = nothingToFlush
        let (idleFor, canTrim) = image.state.withLock { state in
            // The time of an earlier call would not do: between them may be hours in which there was nothing to wait for.
            if state.hasChangedSinceTick { state.lastChangeTick = now }
            state.hasChangedSinceTick = false
            let idleFor = now - min(now, state.lastChangeTick)
            return (idleFor, state.cursor.needCheck.canBeCleared && state.fills.isEmpty)
        }
        if isClean {
            housekeeping.dirtySince = 0
            if canTrim && idleFor >= EngineQueue.trimDelayMilliseconds { housekeeping.wantsTrim = true }
        } else if housekeeping.dirtySince == 0 {
            housekeeping.dirtySince = now
        } else if now - housekeeping.dirtySince >= EngineQueue.commitDelayMilliseconds {
            housekeeping.wantsCommit = true
            housekeeping.dirtySince = now
        }
        startHousekeeping()
    }

    /// Whether `tick` still has something to wait for: nothing while the image is clean and trimmed.
    public var needsTick: Bool {
        if image.isReadOnly || image.failure != nil { return false }
        // Metadata is changed only under NEED_CHECK.
        return image.isUnsynced.load(ordering: .acquiring) || image.needCheckHint.load(ordering: .acquiring) != .clear
    }

    /// Called between batches, and before the queue waits: starts the fills that the batch has planned; extends the file, or
    /// commits, before somebody has to wait for it.
    @inline(__always)
    public func endOfBatch() {
        if !plannedFills.isEmpty { startFillJobs() }
        if image.wantsHousekeeping.load(ordering: .relaxed) { lookAround() }
    }

    private func lookAround() {
        guard !housekeeping.isRunning, !image.isReadOnly, image.needCheckHint.load(ordering: .acquiring).allowsChanges
        else { return }
        let (extends, commits) = image.state.withLock { state in
            let wanted = (state.wantsExtension, state.wantsCommit)
            if !wanted.0 && !wanted.1 { image.wantsHousekeeping.store(false, ordering: .relaxed) }
            return wanted
        }
        if extends { housekeeping.wantsExtension = true }
        if commits { housekeeping.wantsCommit = true }
        startHousekeeping()
    }

    private func startHousekeeping() {
        let isWanted = housekeeping.wantsCommit || housekeeping.wantsExtension || housekeeping.wantsTrim
        guard isWanted, !housekeeping.isRunning else { return }
        housekeeping.isRunning = true
        wakeTask(housekeepingSlot)
    }

    /// Errors stay where they are: dirty pages are dirty still, and the request that needs space meets the error itself.
    func keepHouse() async {
        let wanted = housekeeping
        housekeeping.wantsCommit = false
        housekeeping.wantsExtension = false
        housekeeping.wantsTrim = false
        do throws(RequestError) {
            if wanted.wantsExtension { try await extend(atLeast: 1) }
            if wanted.wantsCommit { try await commit(slot: housekeepingSlot) }
            if wanted.wantsTrim { try await trim() }
        } catch {
            housekeeping.dirtySince = 0
            // Not again before something has changed: a disk that stays full would be asked without end.
            image.wantsHousekeeping.store(false, ordering: .relaxed)
        }
        housekeeping.isRunning = false
    }

    /// Gives back what was extended ahead and marks the image as clean, when nothing is being allocated. Who wants to change
    /// an entry meanwhile waits for the end, and for the next extension, which marks the image again.
    func trim() async throws(RequestError) {
        let length = image.withCursor { state -> UInt64? in
            // Pages that a commit is writing are dirty no more, but they are not durable either.
            guard state.fills.isEmpty, state.commit.isIdle, !state.hasDirtyMetadata else { return nil }
            return state.cursor.beginTrim()
        }
        guard let length else { return }
        let failure = await shorten(to: isSabotaged(.trimTooShort) ? length - image.geometry.clusterSizeBytes : length)
        let waiters = image.withCursor { state in
            state.cursor.trimEnded(succeeded: failure == nil)
            let waiters = state.spaceWaiters
            state.spaceWaiters = []
            return waiters
        }
        for waiter in waiters { waiter.resume(returning: 0) }
        if let failure { throw failure }
    }

    private func shorten(to length: UInt64) async -> RequestError? {
        do throws(RequestError) {
            try await sync()
            do throws(StorageError) { try await top.setLength(length) } catch { throw .storage(error.errno) }
            if !isSabotaged(.keepNeedCheck) { try await writeNeedCheck(false) }
            try await sync()
            return nil
        } catch {
            return error
        }
    }

    /// Makes everything durable, gives back what was extended ahead, and marks the image as clean. The last thing that is
    /// done with a writable image, by one queue, when no request is under way on any.
    /// - Throws: what went wrong; the image is then as after a crash: sound, and checked when it is next opened.
    public func close() async throws(RequestError) {
        guard !image.isReadOnly else { return }
        slots[housekeepingSlot].isSlow = true
        try await commit(slot: housekeepingSlot)
        // An extension ahead of its need may still be under way: what it gains is given back too.
        _ = await cursorIdle()
        try await trim()
    }
}
