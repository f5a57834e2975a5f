import IOURing

/// Where the data of a request is, or is to be.
public enum RequestData: Equatable {
    /// It has none.
    case none
    /// In memory that is the target's until the request is finished.
    case memory(UnsafeMutableRawPointer)
    /// In the request's pages, registered with the queue's ring under the tag's number, unless the target borrows memory for
    /// it (`RequestMemory`).
    case pages
}

/// What serves the requests of one queue: the queue loop hands it requests and its own I/O's completions, and takes
/// results. Everything happens on the queue's thread.
///
/// In a turn the loop waits, hands over completions and new requests, ends the batch, runs the tasks that are ready, and takes
/// results until there are none. So it never waits beside a result, a task that is ready, or a batch that has not ended; a target
/// may rely on that, but for a queue that is quiet, whose batches do not end. In the end no request is under way: then comes
/// `stop`, and turns until `isStopped`.
public protocol BlockTarget: AnyObject, SendableMetatype {
    /// Starts a request. The result comes from `nextFinished`, perhaps at once. One for which the target could not borrow memory
    /// is started again with it, as if it had not been before.
    func start(tag: Int, _ request: RequestDescriptor, _ data: RequestData)

    /// An operation that the target put on the queue's ring has completed.
    func completed(_ token: CompletionToken, _ result: Int32)

    /// All completions of a turn have been handed out.
    func endOfBatch()

    /// A request that is done: 0 for success, or a negative errno that is not EAGAIN. Nil when there is none.
    ///
    /// -ECANCELED while the queue leaves: the target has given it up, and it is left to the next server.
    func nextFinished() -> (tag: Int, result: Int32)?

    /// Whether `tick` should be called about once a second.
    var needsTick: Bool { get }

    /// - Parameter nowMilliseconds: of the monotonic clock.
    func tick(nowMilliseconds: UInt64)

    /// Whether nothing is under way that the target began by itself, such as its housekeeping. Looked at when no request is;
    /// from then on until the next request neither `tick` nor `endOfBatch` is called.
    var isQuiet: Bool { get }

    /// No request is under way and none will come: let go of everything.
    func stop()

    /// Whether nothing of the target's is left on the ring.
    var isStopped: Bool { get }
}
