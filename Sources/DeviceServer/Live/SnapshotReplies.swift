import CSupport
import Platform

/// The requests for snapshots: one is taken at a time, on a thread of its own. Belongs to the server's main thread.
final class SnapshotReplies {
    /// Readable when `takeAnswers` has something; negative: none has been asked for.
    private(set) var finished: Int32 = -1
    private let snapshot: Snapshot
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

    init(_ snapshot: Snapshot) { self.snapshot = snapshot }

    /// - Returns: the answer, where it is there; else it comes from `takeAnswers`.
    func take(at path: String, _ request: ControlSocketServer.ConnectionID) -> ControlReply? {
        guard running == nil else { return .failure(.busy, "another snapshot is being taken; try again") }
        if finished < 0 { finished = cs_eventfd() }
        let outcome = Outcome()
        let (snapshot, finished) = (self.snapshot, self.finished)
        guard finished >= 0,
            let thread = try? BackgroundThread({
                outcome.reply = SnapshotReplies.reply(snapshot, path)
                cs_eventfd_signal(finished)
            })
        else { return .failure(.failed, "the server has no thread to take a snapshot with") }
        running = Run(thread: thread, outcome: outcome, request: request)
        return nil
    }

    private static func reply(_ snapshot: Snapshot, _ path: String) -> ControlReply {
        do throws(SnapshotError) {
            let took = try snapshot.take(at: path)
            return .success(["snapshot": .string(path), "microseconds": JSONValue(took)])
        } catch {
            return error.reply
        }
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
        return [(run.request, run.outcome.reply ?? .failure(.failed, "the server could not take a snapshot"))]
    }
}
