import Glibc

/// A moment after which waiting is given up.
package struct Deadline {
    private let instant: ContinuousClock.Instant

    package init(after timeout: Duration) {
        instant = ContinuousClock.now.advanced(by: min(timeout, .seconds(1_000_000_000)))
    }

    /// Never negative.
    package var remaining: Duration { max(ContinuousClock.now.duration(to: instant), .zero) }
    package var hasPassed: Bool { ContinuousClock.now >= instant }
}

extension Duration {
    /// Whole milliseconds, at most those of some thirty years.
    package var milliseconds: Int64 { nanoseconds / 1_000_000 }

    /// Whole nanoseconds, at most those of some thirty years.
    package var nanoseconds: Int64 {
        let components = min(self, .seconds(1_000_000_000)).components
        return components.seconds * 1_000_000_000 + components.attoseconds / 1_000_000_000
    }
}

/// Blocks the thread for this long, or until a signal arrives.
package func pause(_ duration: Duration) {
    let nanoseconds = Int(duration.nanoseconds)
    var time = timespec(tv_sec: nanoseconds / 1_000_000_000, tv_nsec: nanoseconds % 1_000_000_000)
    nanosleep(&time, nil)
}
