import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// The background commit, extension ahead, and giving back what was extended in vain.
final class Housekeeper<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone; what the queues share is behind the image's lock.
    private struct Wants {
        var commit = false
        var extend = false
        var trim = false

        var isEmpty: Bool { !commit && !extend && !trim }
    }

    private let image: Image
    private let committer: Committer<S>
    private let extender: SpaceExtender<S>
    private let tasks: QueueTasks
    private var wants = Wants()
    /// One task at a time.
    private(set) var isRunning = false
    /// When this queue first saw that something is not durable; 0: everything is. Milliseconds.
    private var dirtySince: UInt64 = 0

    init(image: Image, committer: Committer<S>, extender: SpaceExtender<S>, tasks: QueueTasks) {
        self.image = image
        self.committer = committer
        self.extender = extender
        self.tasks = tasks
    }

    /// How long acknowledged writes may stay volatile when nobody flushes.
    private static var commitDelayMilliseconds: UInt64 { 5_000 }
    /// How long after the last change of an entry the image is trimmed and marked as clean.
    private static var trimDelayMilliseconds: UInt64 { 5_000 }

    /// Looks at the time. Called about once a second by the owner of one queue of the image.
    /// - Parameter now: milliseconds of a clock that does not go back; more than 0.
    func tick(_ now: UInt64) {
        precondition(now > 0 && now >= dirtySince, "a clock that goes back")
        guard !image.isReadOnly, image.failure == nil else { return }
        let isClean = committer.nothingToFlush
        let (idleFor, canTrim) = image.state.withLock { state in
            // The time of an earlier call would not do: between them may be hours in which there was nothing to wait for.
            if state.hasChangedSinceTick { state.lastChangeTick = now }
            state.hasChangedSinceTick = false
            let idleFor = now - min(now, state.lastChangeTick)
            return (idleFor, state.cursor.needCheck.canBeCleared && state.fills.isEmpty)
        }
        if isClean {
            dirtySince = 0
            if canTrim && idleFor >= Housekeeper.trimDelayMilliseconds { wants.trim = true }
        } else if dirtySince == 0 {
            dirtySince = now
        } else if now - dirtySince >= Housekeeper.commitDelayMilliseconds {
            wants.commit = true
            dirtySince = now
        }
        start()
    }

    /// Whether `tick` still has something to wait for: nothing while the image is clean and trimmed.
    var needsTick: Bool {
        if image.isReadOnly || image.failure != nil { return false }
        // Metadata is changed only under NEED_CHECK.
        return image.isUnsynced.load(ordering: .acquiring) || image.needCheckHint.load(ordering: .acquiring) != .clear
    }

    /// Extends the file, or commits, before somebody has to wait for it.
    func lookAround() {
        guard !isRunning, !image.isReadOnly, image.needCheckHint.load(ordering: .acquiring).allowsChanges
        else { return }
        let (extends, commits) = image.state.withLock { state in
            let wanted = (state.wantsExtension, state.wantsCommit)
            if !wanted.0 && !wanted.1 { image.wantsHousekeeping.store(false, ordering: .relaxed) }
            return wanted
        }
        if extends { wants.extend = true }
        if commits { wants.commit = true }
        start()
        precondition(wants.isEmpty || isRunning || tasks.isStopping, "something is wanted, and nobody does it")
    }

    private func start() {
        guard !wants.isEmpty, !isRunning, !tasks.isStopping else { return }
        precondition(!image.isReadOnly, "an image that is only read needs no care")
        isRunning = true
        tasks.start { await self.keepHouse() }
    }

    /// Errors stay where they are: dirty pages are dirty still, and the request that needs space meets the error itself.
    private func keepHouse() async {
        precondition(isRunning, "a task that was not started")
        let wanted = wants
        wants = Wants()
        do throws(RequestError) {
            if wanted.extend { try await extender.extend(atLeast: 1) }
            if wanted.commit { try await committer.commit() }
            if wanted.trim { try await extender.trim() }
        } catch {
            dirtySince = 0
            // Not again before something has changed: a disk that stays full would be asked without end.
            image.wantsHousekeeping.store(false, ordering: .relaxed)
        }
        isRunning = false
    }

    /// Makes everything durable, gives back what was extended ahead, and marks the image as clean.
    func close() async throws(RequestError) {
        guard !image.isReadOnly else { return }
        repeat {
            try await committer.commit()
            // An extension ahead of its need may still be under way: what it gains is given back too.
            _ = await extender.cursorIdle()
            precondition(image.state.withLock { $0.fills.isEmpty }, "an image is closed beside a copy")
            try await extender.trim()
            // A commit that a queue of the image above has asked for keeps a trim from beginning.
        } while image.state.withLock { $0.cursor.needCheck.canBeCleared }
    }
}
