import Glibc
import SystemPackage

/// System calls that may wait for a disk and that io_uring does not have, made by a thread of their own, so that the thread
/// that serves requests does not wait with them.
///
/// One thread for the process, made at the first call: these calls are rare, and one that hangs must hold up nobody but others
/// of its kind. It inherits what the thread that makes it may not do while it allocates memory (`PR_SET_IO_FLUSHER`).
public final class BlockingCalls: @unchecked Sendable {
    // SAFETY: `waiting` and `hasThread` are guarded by the mutex; mutex and condition are initialised in `init` and never move.
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private var waiting: [Call] = []
    private var hasThread = false

    private struct Call {
        var body: () -> Int64
        var caller: UnsafeContinuation<Int64, Never>
    }

    public static let shared = BlockingCalls()

    private init() {
        mutex = .allocate(capacity: 1)
        mutex.initialize(to: pthread_mutex_t())
        condition = .allocate(capacity: 1)
        condition.initialize(to: pthread_cond_t())
        precondition(pthread_mutex_init(mutex, nil) == 0, "cannot initialise a mutex")
        precondition(pthread_cond_init(condition, nil) == 0, "cannot initialise a condition")
    }

    /// Makes the call on the thread, after those that came before, and suspends the task until its end. Where there can be no
    /// further thread it is made here.
    /// - Returns: what the call returns.
    public func run(_ body: @escaping () -> Int64) async -> Int64 {
        guard startThread() else { return body() }
        return await withUnsafeContinuation { caller in
            pthread_mutex_lock(mutex)
            waiting.append(Call(body: body, caller: caller))
            pthread_cond_signal(condition)
            pthread_mutex_unlock(mutex)
        }
    }

    private func startThread() -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        if hasThread { return true }
        do throws(Errno) {
            try BackgroundThread({ [self] in makeCalls() }).detach()
            hasThread = true
        } catch {
            return false
        }
        return true
    }

    private func makeCalls() -> Never {
        while true {
            pthread_mutex_lock(mutex)
            while waiting.isEmpty { pthread_cond_wait(condition, mutex) }
            let call = waiting.removeFirst()
            pthread_mutex_unlock(mutex)
            call.caller.resume(returning: call.body())
        }
    }
}
