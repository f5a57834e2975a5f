import IOURing
import Synchronization

/// Tells the queues of a device that their server goes, and the device stays. Any thread.
public final class ServerDeparture: Sendable {
    private let asked = Atomic<Bool>(false)
    private let executors = Lock<[RingExecutor]>([])

    public init() {}

    /// Each queue's loop ends once the requests that it has are answered.
    public func ask() {
        asked.store(true, ordering: .sequentiallyConsistent)
        executors.withLock { for executor in $0 { executor.wake() } }
    }

    var isAsked: Bool { asked.load(ordering: .acquiring) }

    /// Has the loop of `executor` return from its wait when the departure is asked for.
    func wakes(_ executor: RingExecutor) {
        executors.withLock { $0.append(executor) }
        if isAsked { executor.wake() }
    }
}
