/// Whether submissions that are prepared go to the kernel now, in the middle of a turn, and not with the system call that ends
/// it.
///
/// A disk may complete all that it has at once. If the requests that follow were all prepared before the first of them is
/// submitted, the disk would be idle meanwhile, and complete all at once again. So the first few of a turn are submitted as
/// soon as they are prepared, the next ones when they are twice as many, and so on: by then the disk has something to do, and
/// the system calls would cost more than they bring. Where completions come one by one nothing is ever due.
public struct EarlySubmission: Sendable {
    @usableFromInline var threshold = EarlySubmission.first
    /// What was prepared since the last submission.
    @usableFromInline var count = 0

    /// As few as are worth a system call of their own.
    @inlinable public static var first: Int { 4 }

    public init() {}

    /// The turn's system call submits all that is prepared.
    @inlinable @inline(__always)
    public mutating func beginTurn() {
        threshold = EarlySubmission.first
        count = 0
    }

    /// One more request was started.
    /// - Returns: whether it and those before it are to be submitted now.
    @inlinable @inline(__always)
    public mutating func add() -> Bool {
        count &+= 1
        guard count >= threshold else { return false }
        count = 0
        threshold &*= 2
        return true
    }
}
