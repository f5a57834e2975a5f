/// When to try to connect again: at once, and then after pauses that become longer. A value, so that it can be tested by itself.
struct Reconnection: Equatable {
    /// Not before.
    private(set) var dueAt: UInt64 = 0
    private var failedAt: UInt64 = 0
    private var pause = Reconnection.firstPause

    static let firstPause: UInt64 = 100_000_000
    static let longestPause: UInt64 = 5_000_000_000

    /// An attempt has failed, or the connection was lost.
    mutating func failed(now: UInt64) {
        failedAt = now
        dueAt = now &+ pause
        pause = min(pause * 2, Reconnection.longestPause)
    }

    /// Somebody waits for the next attempt, and for nothing else: it comes as soon as the first one after a loss would.
    mutating func hurry() { dueAt = min(dueAt, failedAt &+ Reconnection.firstPause) }

    mutating func succeeded() {
        (dueAt, failedAt) = (0, 0)
        pause = Reconnection.firstPause
    }

    func isDue(now: UInt64) -> Bool { now >= dueAt }
}
