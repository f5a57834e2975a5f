/// Whether space is zeroed by the disk when it is reserved.
///
/// A file system keeps account of reserved space that was never written, and has to change it with the first write to each
/// piece: half as much work as the write itself (`bench/zeroed-space.sh`). Where the disk zeroes the space when it is reserved
/// (Linux 6.17, and a disk that need not write for it), first writes are like later ones. A pure value.
struct FreshSpaceZeroing {
    /// The most that zeroing may take, beside a nanosecond for each byte: on a slower disk writes would wait for space.
    static let latencyNanoseconds: UInt64 = 10_000_000
    /// So many reservations go without after one that took longer, for a disk can have been busy with something else; four
    /// times as many after each that follows, for on a slow disk each attempt may be a wait.
    static let shortestPause = 64
    static let longestPause = 4096

    private var isPossible = true
    private var pause = shortestPause
    /// Reservations that are still to go without.
    private var pauseLeft = 0

    /// Whether the next reservation is to be zeroed. Asked once for each.
    mutating func isWantedNext() -> Bool {
        precondition(pauseLeft >= 0 && pause >= FreshSpaceZeroing.shortestPause, "a pause that is none")
        guard isPossible else { return false }
        guard pauseLeft == 0 else {
            pauseLeft -= 1
            return false
        }
        return true
    }

    /// Kernel, file system or disk cannot.
    mutating func refused() { isPossible = false }

    /// So many bytes were zeroed in so many nanoseconds.
    mutating func ended(byteCount: UInt64, nanoseconds: UInt64) {
        guard nanoseconds > FreshSpaceZeroing.latencyNanoseconds &+ byteCount else {
            pause = FreshSpaceZeroing.shortestPause
            return
        }
        precondition(isPossible && pauseLeft == 0, "space was zeroed that was not to be")
        pauseLeft = pause
        pause = min(pause * 4, FreshSpaceZeroing.longestPause)
    }
}
