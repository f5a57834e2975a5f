/// Decides who runs a commit, and who shares it.
///
/// A flush that arrives while no commit runs leads one. Flushes that arrive meanwhile wait for the next, which the first of
/// them leads for all: the running commit may have passed the point where it would have seen their writes. So however
/// many flush at once, at most two commits stand between a flush and its answer.
///
/// A pure value, guarded by the image's lock. `Waiter` is whatever the caller needs to wake a task.
struct CommitCoordinator<Waiter> {
    enum Role: Equatable {
        /// Run the commit, then call `commitEnded`.
        case lead
        /// Wait to be told: the result of a commit, or to lead the next one.
        case wait
    }

    /// What the end of a commit means for others.
    struct Outcome {
        /// Shared the commit that ended: they get its result.
        var finished: [Waiter]
        /// Leads the next commit.
        var nextLeader: Waiter?
    }

    private var isRunning = false
    private var followers: [Waiter] = []
    private var waiting: [Waiter] = []

    var isIdle: Bool { !isRunning }

    /// A flush arrives.
    /// - Parameter waiter: called for only when it has to wait.
    mutating func join(_ waiter: @autoclosure () -> Waiter) -> Role {
        if isRunning && isSabotaged(.flushJoinsRunningCommit) {
            followers.append(waiter())
            return .wait
        }
        if isRunning {
            waiting.append(waiter())
            return .wait
        }
        isRunning = true
        return .lead
    }

    /// The commit that the caller led has ended, well or not.
    mutating func commitEnded() -> Outcome {
        precondition(isRunning, "no commit was running")
        let finished = isSabotaged(.dropCommitFollowers) ? [] : followers
        guard !waiting.isEmpty else {
            followers = []
            isRunning = false
            return Outcome(finished: finished, nextLeader: nil)
        }
        let leader = waiting.removeFirst()
        followers = waiting
        waiting = []
        return Outcome(finished: finished, nextLeader: leader)
    }
}
