import CSupport
import Glibc
import SystemPackage

/// A thread that makes calls for others, one after the other, in the order in which they were asked for.
///
/// For system calls that may wait: whoever asks for one does not wait with it. It inherits what the thread that makes it may not
/// do while it allocates memory (`PR_SET_IO_FLUSHER`), and on which processors that one runs.
package final class SerialThread: Sendable {
    private let calls: Calls

    /// - Parameter name: its own in ps and top; 15 bytes of it.
    /// - Throws: the errno of `pthread_create`.
    package init(name: String) throws(Errno) {
        calls = Calls()
        try BackgroundThread({ [calls] in
            cs_name_thread(name)
            calls.make()
        }).detach()
    }

    /// What has not begun is not done any more; nobody waits for what has.
    deinit { calls.end() }

    package func append(_ call: @escaping () -> Void) { calls.append(call) }

    private final class Calls: @unchecked Sendable {
        // SAFETY: `waiting` and `isEnding` are guarded by the mutex; mutex and condition are initialised in `init` and never
        // move. The thread and its owner hold references.
        private let mutex: UnsafeMutablePointer<pthread_mutex_t>
        private let condition: UnsafeMutablePointer<pthread_cond_t>
        private var waiting: [() -> Void] = []
        private var isEnding = false

        init() {
            mutex = .allocate(capacity: 1)
            mutex.initialize(to: pthread_mutex_t())
            condition = .allocate(capacity: 1)
            condition.initialize(to: pthread_cond_t())
            precondition(pthread_mutex_init(mutex, nil) == 0, "cannot initialise a mutex")
            precondition(pthread_cond_init(condition, nil) == 0, "cannot initialise a condition")
        }

        deinit {
            pthread_cond_destroy(condition)
            pthread_mutex_destroy(mutex)
            condition.deallocate()
            mutex.deallocate()
        }

        func append(_ call: @escaping () -> Void) {
            pthread_mutex_lock(mutex)
            waiting.append(call)
            pthread_cond_signal(condition)
            pthread_mutex_unlock(mutex)
        }

        func end() {
            pthread_mutex_lock(mutex)
            isEnding = true
            waiting = []
            pthread_cond_signal(condition)
            pthread_mutex_unlock(mutex)
        }

        private func next() -> (() -> Void)? {
            pthread_mutex_lock(mutex)
            defer { pthread_mutex_unlock(mutex) }
            while waiting.isEmpty && !isEnding { pthread_cond_wait(condition, mutex) }
            return isEnding ? nil : waiting.removeFirst()
        }

        func make() { while let call = next() { call() } }
    }
}
