import IOURing
import Platform

/// What the queues of an image have learned of the holes of the raw file at the bottom of its chain, so that each hole is asked
/// for once.
///
/// A queue's own `KnownData` is read on the inline path, without a lock; it learns from here.
final class SharedKnownData: @unchecked Sendable {
    // SAFETY: everything is behind the lock.
    private struct State {
        var known = KnownData()
        /// A queue asks the file. Others wait for its answer, which is most likely theirs: requests come in order, and all
        /// questions are answered by one thread.
        var isAsking = false
        var waiting: [CompletionContinuation] = []
    }

    private let state = Lock(State())

    private enum Step {
        case known(Range<UInt64>?)
        case ask
        case wait
    }

    /// The next data from `fileOffset` on, as the file tells it; nil when it cannot tell. From the task of a request.
    /// - Parameter ask: asks the file.
    func data(
        from fileOffset: UInt64, fileSizeBytes: UInt64, ask: () async -> Range<UInt64>?
    ) async -> Range<UInt64>? {
        while true {
            switch next(fileOffset) {
            case .known(let data): return data
            case .ask:
                let data = await ask()
                precondition(fileOffset < fileSizeBytes, "holes behind the file's end are asked for")
                for waiter in learn(data, from: fileOffset, fileSizeBytes) { waiter.resume(returning: 0) }
                return data
            case .wait: await wait()
            }
        }
    }

    private func next(_ fileOffset: UInt64) -> Step {
        state.withLock { state in
            if state.known.knows(fileOffset) { return .known(state.known.nextData(from: fileOffset)) }
            if state.isAsking { return .wait }
            precondition(state.waiting.isEmpty, "tasks wait for an answer to no question")
            state.isAsking = true
            return .ask
        }
    }

    private func learn(_ data: Range<UInt64>?, from fileOffset: UInt64, _ fileSizeBytes: UInt64) -> [CompletionContinuation] {
        state.withLock { state in
            precondition(state.isAsking, "an answer to no question")
            state.known.learn(data, from: fileOffset, fileSizeBytes: fileSizeBytes)
            state.isAsking = false
            let waiting = state.waiting
            state.waiting = []
            precondition(state.known.knows(fileOffset), "an answer that is forgotten")
            return waiting
        }
    }

    /// Returns when an answer has come, perhaps before it began to wait.
    private func wait() async {
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let waits = state.withLock { state in
                precondition(state.isAsking || state.waiting.isEmpty, "tasks wait for an answer to no question")
                if state.isAsking { state.waiting.append(continuation) }
                return state.isAsking
            }
            if !waits { continuation.resume(returning: 0) }
        }
    }
}
