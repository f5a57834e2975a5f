import CSupport

/// The flushes of a disk that control requests ask for, on a thread of their own: one takes as long as the disk below needs,
/// and for ever where that hangs, while the server answers others.
///
/// One runs at a time. Whoever asks meanwhile waits for the next one: what was written before the request may be too late for
/// the one that runs. Belongs to the server's main thread.
final class DiskFlushes {
    /// Readable when `takeAnswers` has something; negative: none has been asked for.
    private(set) var finished: Int32 = -1
    private let flush: @Sendable () -> ControlReply
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

    /// - Parameter flush: blocks until what was written is durable, or cannot be.
    init(_ flush: @escaping @Sendable () -> ControlReply) { self.flush = flush }

    var isRunning: Bool { running != nil }

    /// - Returns: the answer, where there is no thread or descriptor for it; else it comes from `takeAnswers`.
    func ask(_ request: ControlSocketServer.ConnectionID) -> ControlReply? {
        waiting.append(request)
        guard running == nil, !start() else { return nil }
        waiting.removeAll { $0 == request }
        return .failure(.failed, "the server has no thread to flush the disk with")
    }

    /// After `finished` was readable.
    func takeAnswers() -> [(ControlSocketServer.ConnectionID, ControlReply)] {
        cs_eventfd_wait(finished)
        guard let run = running else { return [] }
        run.thread.join()
        running = nil
        let reply = run.outcome.reply ?? .failure(.failed, "the flush ended without a result")
        var answers = run.requests.map { ($0, reply) }
        if !waiting.isEmpty, !start() {
            answers += waiting.map { ($0, .failure(.failed, "the server has no thread to flush the disk with")) }
            waiting = []
        }
        return answers
    }

    /// Those who will get no answer: the disk goes. A flush that still runs ends with it.
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
        // The descriptor stays open as long as the process: a flush that was abandoned signals it at its end.
        let (flush, finished) = (self.flush, self.finished)
        guard
            let thread = try? BackgroundThread({
                outcome.reply = flush()
                cs_eventfd_signal(finished)
            })
        else { return false }
        running = Run(thread: thread, outcome: outcome, requests: waiting)
        waiting = []
        return true
    }
}

extension DiskFlushes {
    /// Of a block device: with what its page cache has, and those of its partitions, which are others.
    convenience init(ofDiskAt path: String) {
        self.init {
            let failures = WriteBackProcess.run(.flush, ofDiskAt: path)
            return failures.first.map { .failure(.failed, $0) } ?? .success(.null)
        }
    }
}
