import IOURing
import Platform

/// Why the queues of a device did not do what they were asked.
public enum QueueSilence: Error, Equatable, CustomStringConvertible {
    /// The queue serves no more.
    case ended(queue: Int)
    /// The queue's thread did not answer, or its requests did not end, in time.
    case late(queue: Int)
    /// Somebody else holds the queues.
    case held

    public var description: String {
        switch self {
        case .ended(let queue): "queue \(queue) is not served any more"
        case .late(let queue): "queue \(queue) did not answer in time: its thread waits, or a request does"
        case .held: "somebody else holds the queues"
        }
    }
}

/// The queues of a device, by their mailboxes: what is asked of all of them at once. Any thread but theirs.
public final class DeviceQueues<Target: BlockTarget>: Sendable {
    public let mailboxes: [QueueMailbox<Target>]
    private let isHeld = Lock(false)

    public init(count: Int) { mailboxes = (0..<count).map { _ in QueueMailbox() } }

    /// Asks every queue's thread the same. Blocks until all have answered, but not longer than `timeout`.
    /// - Returns: the answers in the order of the queues.
    public func ask<Value: Sendable>(
        timeout: Duration, _ question: @escaping @Sendable (Target, QueueStatistics) -> Value
    ) throws(QueueSilence) -> [Value] {
        try Self.collect(mailboxes.map { $0.ask(question) }, Deadline(after: timeout))
    }

    /// Runs `body` on this thread while no request is under way on any queue: every queue stops to start new ones, those that
    /// it has end, `body` runs, and all go on. What arrives meanwhile is kept, and started then; so a request waits for those
    /// that were under way, and for `body`, and for nothing else.
    ///
    /// A queue that is to leave, or whose device is stopped, ends after that.
    /// - Parameter timeout: how long the requests that are under way may take. When they take longer `body` does not run.
    /// - Throws: why `body` was not run. The queues go on in any case.
    public func whileQuiet<Value>(timeout: Duration, _ body: () -> Value) throws(QueueSilence) -> Value {
        let isFree = isHeld.withLock { isHeld in
            defer { isHeld = true }
            return !isHeld
        }
        guard isFree else { throw .held }
        defer { isHeld.withLock { $0 = false } }
        let deadline = Deadline(after: timeout)
        let answers = mailboxes.map { $0.hold() }
        defer { for mailbox in mailboxes { mailbox.resume() } }
        _ = try Self.collect(answers, deadline)
        return body()
    }

    /// Each queue's loop ends once the requests that it has are answered.
    public func leave() { for mailbox in mailboxes { mailbox.leave() } }

    private static func collect<Value: Sendable>(
        _ answers: [Answer<QueueReply<Value>>], _ deadline: Deadline
    ) throws(QueueSilence) -> [Value] {
        var values: [Value] = []
        for (queue, answer) in answers.enumerated() {
            switch answer.wait(timeout: deadline.remaining) {
            case .done(let value): values.append(value)
            case .ended: throw .ended(queue: queue)
            case nil: throw .late(queue: queue)
            }
        }
        return values
    }
}
