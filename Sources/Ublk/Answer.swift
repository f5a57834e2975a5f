import Glibc
import Platform

/// A value that one thread gives once, and others wait for, for a bounded time.
public final class Answer<Value: Sendable>: @unchecked Sendable {
    // SAFETY: the mutex guards the value; mutex and condition never move (heap), and live as long as any reference.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let given: UnsafeMutablePointer<pthread_cond_t>
    private var value: Value?
    /// What gives the answer has begun, or never will.
    private var isBegun = false, isWithdrawn = false

    public init() {
        mutex = .allocate(capacity: 1)
        given = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        given.initialize(to: pthread_cond_t())
        precondition(pthread_mutex_init(mutex, nil) == 0, "cannot initialise a mutex")
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        precondition(pthread_cond_init(given, &attributes) == 0, "cannot initialise a condition")
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(given)
        pthread_mutex_destroy(mutex)
        given.deallocate()
        mutex.deallocate()
    }

    /// Once. Nobody may wait any more; then nothing comes of it.
    public func give(_ value: Value) {
        pthread_mutex_lock(mutex)
        precondition(self.value == nil, "answered twice")
        self.value = value
        pthread_cond_broadcast(given)
        pthread_mutex_unlock(mutex)
    }

    /// Blocks the thread until the value is there, but not longer than `timeout`.
    /// - Returns: nil: it is late.
    public func wait(timeout: Duration) -> Value? {
        var end = timespec()
        clock_gettime(CLOCK_MONOTONIC, &end)
        let nanoseconds = end.tv_nsec + Int(timeout.nanoseconds)
        end.tv_sec += nanoseconds / 1_000_000_000
        end.tv_nsec = nanoseconds % 1_000_000_000
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while value == nil, pthread_cond_timedwait(given, mutex, &end) != ETIMEDOUT {}
        return value
    }

    /// The same for what must not be done behind the back of whoever gave it up: what has not begun in time never will. What has
    /// is waited for.
    public func waitOrWithdraw(timeout: Duration) -> Value? {
        if let value = wait(timeout: timeout) { return value }
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        isWithdrawn = !isBegun
        while value == nil, !isWithdrawn { pthread_cond_wait(given, mutex) }
        return value
    }

    /// Asked before what gives the answer is done.
    /// - Returns: whether somebody still wants it.
    func begin() -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        isBegun = !isWithdrawn
        return isBegun
    }
}
