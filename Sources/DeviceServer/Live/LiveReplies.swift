import CSupport
import Platform

/// The requests for changes of a device that works: of each kind one at a time, on a thread of its own. Belongs to the server's
/// main thread.
final class LiveReplies {
    /// Readable when `takeAnswers` has something; negative: none has been asked for.
    private(set) var finished: Int32 = -1
    /// What is under way, for the sentence that says so to others: "another snapshot is being taken".
    private let subject: String
    private var running: Run?

    private struct Run {
        let thread: BackgroundThread
        let outcome: Outcome
        let request: ControlSocketServer.ConnectionID
    }

    private final class Outcome: @unchecked Sendable {
        // SAFETY: set by the thread, read after it was joined.
        var reply: ControlReply?
    }

    init(_ subject: String) { self.subject = subject }

    /// - Returns: the answer, where it is there; else it comes from `takeAnswers`.
    func begin(
        _ request: ControlSocketServer.ConnectionID, _ make: @escaping @Sendable () -> ControlReply
    ) -> ControlReply? {
        guard running == nil else { return .failure(.busy, "\(subject); try again") }
        if finished < 0 { finished = cs_eventfd() }
        let outcome = Outcome()
        let finished = self.finished
        guard finished >= 0,
            let thread = try? BackgroundThread({
                outcome.reply = make()
                cs_eventfd_signal(finished)
            })
        else { return .failure(.failed, "the server has no thread for that") }
        running = Run(thread: thread, outcome: outcome, request: request)
        return nil
    }

    /// After `finished` was readable.
    func takeAnswers() -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        cs_eventfd_wait(finished)
        return finish()
    }

    /// Waits for the end of the one that is being taken: what it changes is about to be closed.
    func finish() -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        guard let run = running else { return [] }
        running = nil
        run.thread.join()
        return [(run.request, run.outcome.reply ?? .failure(.failed, "the server could not do that"))]
    }
}
