/// Decides who runs a commit, when it begins, and who shares it.
///
/// A flush that arrives while no commit runs leads one. Flushes that arrive after it has begun wait for the next, which the
/// first of them leads for all: the running commit may have passed the point where it would have seen their writes. So
/// however many flush at once, at most two commits stand between a flush and its answer.
///
/// The kernel sends one flush of each hardware queue at a time. Two queues that flush without end would take turns, each
/// alone in its commit, because the answered one is back only after the other's commit has begun. So a leader waits
/// for those who shared the last commit or waited at its end, for a part of the time that commits take; no longer than
/// until all are there, and not where the last commit is long past.
///
/// A pure value, guarded by the image's lock. `Waiter` is whatever the caller needs to wake a task.
struct CommitCoordinator<Waiter> {
    enum Role: Equatable {
        /// Gather, call `begin`, run the commit, then call `commitEnded`.
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

    private enum Phase {
        case idle
        /// There is a leader, and who arrives shares its commit.
        case gathering
        case running
    }

    private var phase = Phase.idle
    private var followers: [Waiter] = []
    private var waiting: [Waiter] = []
    /// How many shared the last commit or waited at its end.
    private var expectedCount = 0
    /// The leader, while it is suspended until the others are there.
    private var gatherer: Waiter?
    private var gatheringNumber: UInt64 = 0
    private var lastBeginNanoseconds: UInt64 = 0
    private var lastEndNanoseconds: UInt64 = 0

    var isIdle: Bool { phase == .idle }

    /// A flush arrives.
    /// - Parameter waiter: called for only when it has to wait.
    mutating func join(_ waiter: @autoclosure () -> Waiter) -> Role {
        switch phase {
        case .idle:
            phase = .gathering
            return .lead
        case .running where isSabotaged(.flushJoinsRunningCommit):
            followers.append(waiter())
        case .gathering, .running:
            waiting.append(waiter())
        }
        precondition(phase != .idle, "somebody waits for a commit that nobody leads")
        return .wait
    }

    /// How long the leader is to wait for others; nil: not at all.
    /// - Parameter now: nanoseconds of the clock that `begin` and `commitEnded` are given.
    func gatheringNanoseconds(now: UInt64) -> UInt64? {
        guard waiting.count + 1 < expectedCount else { return nil }
        precondition(lastEndNanoseconds >= lastBeginNanoseconds, "a commit that ended before it began")
        let window = min((lastEndNanoseconds - lastBeginNanoseconds) / Gathering.share, Gathering.longestNanoseconds)
        let deadline = lastEndNanoseconds + window
        return now + Gathering.shortestNanoseconds <= deadline ? deadline - now : nil
    }

    /// The leader is suspended.
    /// - Returns: a number for `gatheringTimedOut`.
    mutating func gather(_ leader: Waiter) -> UInt64 {
        precondition(phase == .gathering && gatherer == nil, "gathering without a leader, or twice")
        gatherer = leader
        gatheringNumber += 1
        return gatheringNumber
    }

    /// To be asked after each `join`.
    /// - Returns: the leader, to be woken, when all whom it waits for are there.
    mutating func gathered() -> Waiter? {
        precondition(gatherer == nil || phase == .gathering, "a leader waits beside its commit")
        guard waiting.count + 1 >= expectedCount else { return nil }
        return gatherer.take()
    }

    /// The time of a gathering is over.
    /// - Returns: the leader, to be woken, when it waits still.
    mutating func gatheringTimedOut(_ number: UInt64) -> Waiter? { number == gatheringNumber ? gatherer.take() : nil }

    /// The leader's commit begins: it covers what everybody who is here has written, and nobody who arrives later shares it.
    mutating func begin(now: UInt64 = 0) {
        precondition(phase == .gathering && gatherer == nil, "a commit without a leader")
        phase = .running
        lastBeginNanoseconds = now
        precondition(followers.isEmpty, "a commit begins before the last one's sharers were told")
        followers = waiting
        waiting = []
    }

    /// The commit that the caller led has ended, well or not.
    mutating func commitEnded(now: UInt64 = 0) -> Outcome {
        precondition(phase == .running && gatherer == nil, "no commit was running")
        let finished = isSabotaged(.dropCommitFollowers) ? [] : followers
        expectedCount = 1 + followers.count + waiting.count
        lastEndNanoseconds = max(now, lastBeginNanoseconds)
        followers = []
        guard !waiting.isEmpty else {
            phase = .idle
            return Outcome(finished: finished, nextLeader: nil)
        }
        phase = .gathering
        precondition(followers.isEmpty && !waiting.isEmpty, "nobody leads the next commit")
        return Outcome(finished: finished, nextLeader: waiting.removeFirst())
    }
}

/// How long a leader waits for others: long enough for an answered flush to go through the kernel and come back as the
/// next one, short beside what the sync costs that is saved.
private enum Gathering {
    /// One part in so many of the last commit's time.
    static let share: UInt64 = 4
    static let longestNanoseconds: UInt64 = 1_000_000
    /// Less is not worth a timer.
    static let shortestNanoseconds: UInt64 = 10_000
}
