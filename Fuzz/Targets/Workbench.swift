import BlockStorage
import FuzzMemory
import IOURing
import QEDEngine

/// Runs asynchronous code of the engine and the tools on files in memory, on this thread, within limits.
final class Workbench: EngineLoop, @unchecked Sendable {
    // SAFETY: one thread.
    let io: FuzzIO
    let executor = FuzzExecutor()

    /// Memory that an input may make the code allocate beyond what was there before; that of the files is in it.
    static let memoryLimitBytes = 80 << 20
    static let jobLimit = 2_000_000
    private var jobCount = 0

    init(seed: UInt64) { io = FuzzIO(seed: seed) }

    func storage(_ file: FuzzFile) -> FuzzStorage { FuzzStorage(io: io, file: file) }

    private final class Box<Value, Failure: Error>: @unchecked Sendable {
        // SAFETY: one thread.
        var result: Result<Value, Failure>?
    }

    /// Runs `operation` to its end.
    /// - Parameter inline: gets the completions of inline tokens.
    func run<Value: Sendable, Failure: Error>(
        _ name: String, inline: (CompletionToken, Int32) -> Void = { _, _ in fail("a completion for nobody") },
        _ operation: @escaping @Sendable () async throws(Failure) -> Value
    ) -> Result<Value, Failure> {
        let box = Box<Value, Failure>()
        fuzz_memory_begin()
        Task(executorPreference: executor) {
            do throws(Failure) { box.result = .success(try await operation()) } catch { box.result = .failure(error) }
        }
        runReady()
        while box.result == nil {
            require(isBusy, "\(name) waits for nothing")
            turn(waits: true, inline: inline)
        }
        checkMemory(name)
        guard let result = box.result else { fail("\(name) has no result") }
        return result
    }

    func checkMemory(_ name: String) {
        let peak = fuzz_memory_peak()
        require(peak <= Workbench.memoryLimitBytes, "\(name) takes \(peak >> 20) MiB of memory")
    }

    // MARK: A loop

    /// Something has been submitted.
    var isBusy: Bool { !io.pending.isEmpty }

    func runReady() {
        while executor.runOne() {
            jobCount += 1
            require(jobCount < Workbench.jobLimit, "it does not end: \(jobCount) steps of tasks")
        }
    }

    /// Who waits gets one completion, whichever the seed decides.
    func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void) {
        guard waits else { return }
        require(isBusy, "the engine waits for nothing")
        let (token, result) = io.completeOne()
        if token.isInline { inline(token, result) } else { token.resume(returning: result) }
        runReady()
    }
}

/// Runs tasks in the order in which they become ready.
final class FuzzExecutor: TaskExecutor, @unchecked Sendable {
    // SAFETY: one thread.
    private var ready: [UnownedJob] = []
    private var next = 0

    func enqueue(_ job: consuming ExecutorJob) { ready.append(UnownedJob(job)) }

    func runOne() -> Bool {
        guard next < ready.count else { return false }
        let job = ready[next]
        next += 1
        if next == ready.count {
            ready.removeAll(keepingCapacity: true)
            next = 0
        }
        job.runSynchronously(on: asUnownedTaskExecutor())
        return true
    }
}
