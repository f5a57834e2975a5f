/// The syncs of an image: one at a time, shared by all who asked for one before it began, and numbered, so that it can be
/// told which of them cover a write.
///
/// One at a time, because the kernel reports a lost write to one sync only. Of two at once the one that succeeds may have
/// covered what the other, whose failure nobody has looked at yet, has lost.
///
/// A write that completed before sync k began is durable once k, or any later one, has succeeded. A pure value, guarded by
/// the image's lock.
struct SyncCoordinator<Waiter> {
    private var turns = CommitCoordinator<Waiter>()
    private(set) var started: UInt64 = 0
    private(set) var completed: UInt64 = 0

    /// The first sync that will cover what has completed by now.
    var nextToStart: UInt64 { started + 1 }
    var isIdle: Bool { turns.isIdle }

    /// Somebody wants what has completed to be durable.
    /// - Returns: `lead`: call `begin`, sync, and call `ended`.
    mutating func join(_ waiter: @autoclosure () -> Waiter) -> CommitCoordinator<Waiter>.Role { turns.join(waiter()) }

    /// The leader's sync begins.
    /// - Returns: its number.
    mutating func begin() -> UInt64 {
        precondition(completed <= started, "a sync that was never begun has completed")
        turns.begin()
        started += 1
        return started
    }

    /// The sync has ended. A failed one covers nothing.
    mutating func ended(succeeded: Bool) -> CommitCoordinator<Waiter>.Outcome {
        precondition(started > completed, "no sync is under way")
        if succeeded { completed = started }
        return turns.commitEnded()
    }
}
