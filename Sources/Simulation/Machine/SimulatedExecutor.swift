/// Runs the engine's tasks on the simulation's thread, in an order that the seed decides.
final class SimulatedExecutor: TaskExecutor, @unchecked Sendable {
    // SAFETY: a simulation has one thread.
    private var ready: [UnownedJob] = []

    func enqueue(_ job: consuming ExecutorJob) { ready.append(UnownedJob(job)) }

    var hasReady: Bool { !ready.isEmpty }

    func runOne(_ random: inout SeededRandom) {
        let index = ready.count == 1 ? 0 : random.below(ready.count)
        ready.swapAt(index, ready.count - 1)
        ready.removeLast().runSynchronously(on: asUnownedTaskExecutor())
    }
}
