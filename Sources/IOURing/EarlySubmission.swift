/// Whether submissions that are prepared go to the kernel now, in the middle of a turn, and not with the system call that ends
/// it.
///
/// A disk may complete all that it has at once. If the requests that follow were all prepared before the first of them is
/// submitted, the disk would be idle meanwhile, and complete all at once again. So the first few of a turn are submitted as
/// soon as they are prepared, the next ones when they are twice as many, and so on: by then the disk has something to do, and
/// the system calls would cost more than they bring. Where completions come one by one nothing is ever due.
public struct EarlySubmission: Sendable {
    @usableFromInline var threshold = EarlySubmission.first

    /// As few as are worth a system call of their own.
    @inlinable public static var first: UInt32 { 4 }

    public init() {}

    @inlinable @inline(__always)
    public mutating func beginTurn() { threshold = EarlySubmission.first }

    /// - Parameter prepared: how many submissions the kernel has not seen.
    @inlinable @inline(__always)
    public mutating func isDue(prepared: UInt32) -> Bool {
        guard prepared >= threshold else { return false }
        threshold &*= 2
        return true
    }
}
