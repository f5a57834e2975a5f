/// When to try to connect again: at once, and then after pauses that become longer. A value, so that it can be tested by itself.
struct Reconnection: Equatable {
    /// Not before.
    private(set) var dueAt: UInt64 = 0
    private var pause = Reconnection.firstPause

    static let firstPause: UInt64 = 100_000_000
    static let longestPause: UInt64 = 5_000_000_000

    /// An attempt has failed, or the connection was lost.
    mutating func failed(now: UInt64) {
        dueAt = now &+ pause
        pause = min(pause * 2, Reconnection.longestPause)
    }

    mutating func succeeded() {
        dueAt = 0
        pause = Reconnection.firstPause
    }

    func isDue(now: UInt64) -> Bool { now >= dueAt }
}
