import IOURing

/// What a queue's loop asks of the kernel: the commands of its tags, its requests, and one turn after the other.
///
/// `DriverQueue` is the real one. Tests play the kernel behind another; the loop is specialised for each, so the real one's
/// way is as short as if there were no other. Everything but `waker` belongs to the queue's thread.
public protocol QueueRing: AnyObject {
    /// How many tags the queue has.
    var depth: Int { get }
    /// Where the driver does not copy, who lends memory for the requests' data.
    var memory: RequestMemory? { get }
    /// Makes the thread return from a turn that waits. Any thread may call it, at any time.
    var waker: @Sendable () -> Void { get }

    /// The request of a tag, from its arrival to its commit.
    func request(_ tag: Int) -> RequestDescriptor
    /// The tag's memory, where the driver copies.
    func buffer(_ tag: Int) -> UnsafeMutableRawPointer

    /// Prepares the command that asks for a tag's first request.
    func fetch(_ tag: Int, token: CompletionToken)
    /// Prepares the command that answers a tag's request and asks for its next one.
    /// - Parameter result: as `QueueCommands.commitAndFetch` wants it.
    func commitAndFetch(_ tag: Int, result: Int32, token: CompletionToken)
    /// Prepares a timer of about a second.
    func awaitTick(token: CompletionToken)

    /// Submits what is prepared, and waits for nothing.
    func submit()
    /// After each request that was started: the same, if the disk should not wait for it until the turn ends.
    func submitEarly()
    /// Submits what is prepared, waits for a completion if asked to, and hands over the completions of inline tokens. Runs
    /// tasks that became ready.
    func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void)
    /// Runs the tasks that are ready.
    func runReady()

    /// The thread has done with it: nothing of the target's is under way. Tags that the driver has are the next server's, and
    /// stay as they are until the thread has ended.
    func end()
}
