import IOURing

/// The tasks of a queue. All run on its thread; the queue does not stop before their end.
final class QueueTasks: @unchecked Sendable {
    // SAFETY: touched by the queue's thread alone.
    private let executor: any TaskExecutor
    private var count = 0
    private(set) var isStopping = false

    init(executor: any TaskExecutor) { self.executor = executor }

    /// Runs something on the queue's thread.
    func start(_ body: @escaping () async -> Void) {
        precondition(count >= 0 && !isStopped, "a task of a queue that has stopped")
        count += 1
        // SAFETY: the task runs on the queue's thread only: its executor preference says so, and nothing in it leaves it.
        nonisolated(unsafe) let body = body
        Task(executorPreference: executor) {
            await body()
            self.count -= 1
            precondition(self.count >= 0, "a task ended that was not started")
        }
    }

    /// No parked task is given work any more.
    func stop() { isStopping = true }

    var isStopped: Bool { isStopping && count == 0 }
}

/// A task that is made when it is first needed, and parked between two pieces of work.
enum ParkedTask {
    case none
    /// There is work that it has not begun.
    case woken
    case working
    case parked(CompletionContinuation)

    /// There is work.
    /// - Returns: true when the task has to be made.
    mutating func wake() -> Bool {
        switch self {
        case .none:
            self = .woken
            return true
        case .parked(let continuation):
            self = .woken
            continuation.resume(returning: 0)
            return false
        case .woken, .working:
            preconditionFailure("the task has work already")
        }
    }

    /// The task looks for work.
    /// - Returns: whether there is some; otherwise it has to park.
    mutating func begin() -> Bool {
        guard case .woken = self else { return false }
        self = .working
        return true
    }

    mutating func park(_ continuation: CompletionContinuation) {
        guard case .working = self else { preconditionFailure("the task is not at work") }
        self = .parked(continuation)
    }

    /// Lets a parked task look once more, and find that the queue is stopping.
    mutating func release() {
        guard case .parked(let continuation) = self else { return }
        self = .working
        continuation.resume(returning: 0)
    }
}
