import CSupport
import SystemPackage

/// A thread's ring with the executor of its tasks: one turn of the loop after the other.
///
/// A turn hands the prepared submissions to the kernel, waits if asked to, gives each completion to whom it belongs (a
/// task that awaits it, or the owner of the inline tokens) and runs all tasks that became ready. The thread that creates the
/// loop is its thread.
public final class RingLoop: @unchecked Sendable {
    // SAFETY: used by the thread that made it; only the executor's inbox and wake-up are for others.
    public let ring: Ring
    public let executor: RingExecutor
    @usableFromInline var early = EarlySubmission()

    /// - Throws: the errno of `io_uring_setup` or `eventfd`.
    public init(entries: UInt32, completionEntries: UInt32, setup: RingSetup = .queue) throws(Errno) {
        executor = try RingExecutor()
        ring = try Ring.create(entries: entries, completionEntries: completionEntries, setup: setup)
        executor.bindToCurrentThread()
        executor.armWakeUp(on: ring)
    }

    /// Ends the loop; no operation but the wake-up's read and timers may be in flight. The calling thread is free for
    /// another loop.
    public func close() {
        end()
        ring.close()
    }

    /// The thread has done with the loop, and is free for another one. Whoever sees the thread's end closes the ring.
    public func end() { executor.unbindFromCurrentThread() }

    /// One turn.
    /// - Parameters:
    ///   - waits: whether to wait for a completion; otherwise only what is there is handled.
    ///   - inline: receives the completions of inline tokens.
    @inlinable @inline(__always)
    public func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void) {
        early.beginTurn()
        if waits { ring.submitAndWait(timeoutNanoseconds: nil) } else { ring.submitAndPoll() }
        ring.drain { token, result in
            if token.isInline {
                inline(token, result)
            } else if token.isContinuation {
                token.resume(returning: result)
            } else {
                executor.armWakeUp(on: ring)
            }
        }
        executor.runReady()
    }

    /// In the middle of a turn, after each request that was started: submits what is prepared if the disk should not wait for
    /// the turn's end.
    @inlinable @inline(__always)
    public func submitEarly() {
        if early.add() { ring.submit() }
    }

    /// Runs one operation on this thread to its end, and whatever its tasks need meanwhile.
    public func run<Value: Sendable, Failure: Error>(
        _ operation: @escaping @Sendable () async throws(Failure) -> Value,
        inline: (CompletionToken, Int32) -> Void = { _, _ in }
    ) throws(Failure) -> Value {
        let box = ResultBox<Value, Failure>()
        Task(executorPreference: executor) {
            do throws(Failure) { box.result = .success(try await operation()) } catch { box.result = .failure(error) }
        }
        executor.runReady()
        while true {
            if let result = box.result { return try result.get() }
            turn(waits: true, inline: inline)
        }
    }

    private final class ResultBox<Value, Failure: Error>: @unchecked Sendable {
        // SAFETY: written and read on the loop's thread.
        var result: Result<Value, Failure>?
    }
}
