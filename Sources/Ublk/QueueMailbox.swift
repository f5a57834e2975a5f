import IOURing
import Platform
import Synchronization

/// What a queue says to a message.
public enum QueueReply<Value: Sendable>: Sendable {
    case done(Value)
    /// The queue serves no more, or never has: its loop ended before it came to the message.
    case ended
}

/// The road to a queue's thread: any thread posts what is to be done there, and awaits the answer.
///
/// The loop takes the messages between two turns, in the order in which they were posted; a post wakes it. Messages that
/// come before the loop runs wait for it, and each is answered, at the latest when the loop ends: nobody waits for a queue
/// that is gone.
public final class QueueMailbox<Target: BlockTarget>: Sendable {
    enum Message: Sendable {
        /// To be done with the target on its thread; nil: the queue has ended.
        case ask(@Sendable ((Target, QueueStatistics)?) -> Void)
        /// Start no request any more, and answer when none is under way.
        case hold(Answer<QueueReply<Void>>)
        /// Go on. Each `hold` has one.
        case resume
        /// The server departs.
        case leave
    }

    private struct Content: Sendable {
        var messages: [Message] = []
        var waker: (@Sendable () -> Void)?
        var isClosed = false
    }

    private let content = Lock(Content())
    /// So that an empty mailbox costs the loop no lock.
    private let flag = MailboxFlag()

    public init() {}

    /// Has the queue's thread ask its target something, between two turns.
    /// - Parameter question: does not wait for anything: the queue's requests wait for it. It is not asked any more when the
    ///   answer has been withdrawn (`Answer.waitOrWithdraw`).
    public func ask<Value: Sendable>(
        _ question: @escaping @Sendable (Target, QueueStatistics) -> Value
    ) -> Answer<QueueReply<Value>> {
        let answer = Answer<QueueReply<Value>>()
        post(
            .ask { asked in
                guard answer.begin() else { return }
                answer.give(asked.map { .done(question($0.0, $0.1)) } ?? .ended)
            })
        return answer
    }

    /// The queue starts no requests until `resume`, which must follow whatever comes of it.
    /// - Returns: answered when nothing is under way any more; not at all where the queue was resumed before.
    func hold() -> Answer<QueueReply<Void>> {
        let answer = Answer<QueueReply<Void>>()
        post(.hold(answer))
        return answer
    }

    /// After `hold`: what has arrived meanwhile is started.
    func resume() { post(.resume) }

    /// The queue's loop ends once the requests that it has are answered, and nobody holds it.
    public func leave() { post(.leave) }

    private func post(_ message: Message) {
        let (isClosed, waker) = content.withLock { content in
            if !content.isClosed { content.messages.append(message) }
            return (content.isClosed, content.waker)
        }
        if isClosed { return Self.refuse(message) }
        flag.isUp.store(true, ordering: .sequentiallyConsistent)
        waker?()
    }

    // MARK: The loop's side

    /// The loop runs from now on, and is woken like this.
    func open(waker: @escaping @Sendable () -> Void) {
        let isEmpty = content.withLock { content in
            content.waker = waker
            return content.messages.isEmpty
        }
        if !isEmpty { waker() }
    }

    @inline(__always)
    var isEmpty: Bool { !flag.isUp.load(ordering: .acquiring) }

    func take() -> [Message] {
        // Taken away first: a message that comes in between is found now, and looked for once more.
        flag.isUp.store(false, ordering: .sequentiallyConsistent)
        return content.withLock { content in
            defer { content.messages = [] }
            return content.messages
        }
    }

    /// Nobody takes messages any more: those that are there, and those that come, are answered with that. Later calls do
    /// nothing.
    public func close() {
        let rest = content.withLock { content in
            content.isClosed = true
            content.waker = nil
            defer { content.messages = [] }
            return content.messages
        }
        for message in rest { Self.refuse(message) }
    }

    private static func refuse(_ message: Message) {
        switch message {
        case .ask(let perform): perform(nil)
        case .hold(let answer): answer.give(.ended)
        case .resume, .leave: break
        }
    }
}

/// There are messages. On its own: Swift 6.3 cannot compile the end of a generic class that holds an atomic.
private final class MailboxFlag: Sendable {
    let isUp = Atomic(false)
}
