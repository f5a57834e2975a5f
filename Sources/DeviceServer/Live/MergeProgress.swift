import CSupport
import Synchronization

/// How far a merge is, or a copy of what lies beneath the image into it, or a fetch, and whether it is to go on: told by its
/// thread, asked and changed by others.
final class MergeProgress: Sendable {
    /// Thousandths; negative: none is under way.
    private let share = Atomic<Int>(-1)
    private let isPaused = Atomic(false)
    private let isCancelled = Atomic(false)

    enum State: Equatable {
        case idle
        case running(thousandths: Int, isPaused: Bool)
    }

    var state: State {
        let share = self.share.load(ordering: .relaxed)
        return share < 0 ? .idle : .running(thousandths: share, isPaused: isPaused.load(ordering: .relaxed))
    }

    func begin() {
        isPaused.store(false, ordering: .relaxed)
        isCancelled.store(false, ordering: .relaxed)
        share.store(0, ordering: .relaxed)
    }

    func end() { share.store(-1, ordering: .relaxed) }

    func pause(_ isPaused: Bool) { self.isPaused.store(isPaused, ordering: .relaxed) }

    func cancel() { isCancelled.store(true, ordering: .relaxed) }

    /// Whether another part may begin now: it is neither paused nor cancelled.
    var isWanted: Bool { !isPaused.load(ordering: .relaxed) && !isCancelled.load(ordering: .relaxed) }

    /// Blocks as long as it is paused.
    /// - Parameter done: the share that is.
    /// - Returns: whether to go on.
    func goesOn(_ done: Double) -> Bool {
        share.store(Int(done * 1000), ordering: .relaxed)
        while isPaused.load(ordering: .relaxed), !isCancelled.load(ordering: .relaxed) { cs_sleep_milliseconds(50) }
        return !isCancelled.load(ordering: .relaxed)
    }
}
