import CSupport
import Platform

/// The replies to control requests of one kind that may take long, made on a thread of their own: a flush takes as long as the
/// disk below needs, and for ever where that hangs, while the server answers others.
///
/// One is made at a time. Whoever asks meanwhile waits for the next one: what was written before the request may be too late
/// for the flush that runs, and figures that are being taken may be older than the request. Belongs to the server's main
/// thread.
final class SharedReplies {
    /// Readable when `takeAnswers` has something; negative: none has been asked for.
    private(set) var finished: Int32 = -1
    private let make: @Sendable () -> ControlReply
    private let purpose: String
    private var running: Run?
    private var waiting: [ControlSocketServer.ConnectionID] = []

    private struct Run {
        let thread: BackgroundThread
        let outcome: Outcome
        let requests: [ControlSocketServer.ConnectionID]
    }

    private final class Outcome: @unchecked Sendable {
        // SAFETY: set by the thread, read after it was joined.
        var reply: ControlReply?
    }

    /// - Parameters:
    ///   - purpose: what is done, for the sentence that says that it cannot be.
    ///   - make: does it, and blocks as long as it takes.
    init(to purpose: String, _ make: @escaping @Sendable () -> ControlReply) {
        self.purpose = purpose
        self.make = make
    }

    var isRunning: Bool { running != nil }

    /// - Returns: the answer, where there is no thread or descriptor for it; else it comes from `takeAnswers`.
    func ask(_ request: ControlSocketServer.ConnectionID) -> ControlReply? {
        waiting.append(request)
        guard running == nil, !start() else { return nil }
        waiting.removeAll { $0 == request }
        return .failure(.failed, "the server has no thread to \(purpose) with")
    }

    /// After `finished` was readable.
    func takeAnswers() -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        cs_eventfd_wait(finished)
        guard let run = running else { return [] }
        run.thread.join()
        running = nil
        let reply = run.outcome.reply ?? .failure(.failed, "the server could not \(purpose)")
        var answers = run.requests.map { ($0, reply) }
        if !waiting.isEmpty, !start() {
            answers += waiting.map { ($0, .failure(.failed, "the server has no thread to \(purpose) with")) }
            waiting = []
        }
        return answers
    }

    /// Those who will get no answer: the disk goes. What still runs ends with it.
    func abandon() -> [ControlSocketServer.ConnectionID] {
        let abandoned = (running?.requests ?? []) + waiting
        running?.thread.detach()
        running = nil
        waiting = []
        return abandoned
    }

    private func start() -> Bool {
        if finished < 0 { finished = cs_eventfd() }
        guard finished >= 0 else { return false }
        let outcome = Outcome()
        // The descriptor stays open as long as the process: what was abandoned signals it at its end.
        let (make, finished) = (self.make, self.finished)
        guard
            let thread = try? BackgroundThread({
                outcome.reply = make()
                cs_eventfd_signal(finished)
            })
        else { return false }
        running = Run(thread: thread, outcome: outcome, requests: waiting)
        waiting = []
        return true
    }
}
