import BlockStorage
import IOURing

/// The loop of the thread that a queue of the engine belongs to: `RingLoop`, or what plays one.
public protocol EngineLoop: AnyObject {
    /// Runs the tasks that are ready, and those that they make ready.
    func runReady()

    /// Hands what is prepared to the storage, waits for a completion if asked to, and gives each that is there to the task
    /// that awaits it, or to `inline`. Runs the tasks that became ready.
    func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void)
}

extension RingLoop: EngineLoop {
    @inlinable @inline(__always)
    public func runReady() { executor.runReady() }
}

/// A queue of the engine and the loop that it is on: the one place that knows in which order they take turns.
///
/// Requests are started (`queue.start`), then comes a turn, then results are taken (`queue.nextFinished`), and so on. In a turn
///
/// 1. the batch ends: copies that were planned begin, for nothing else would begin them, and space is extended ahead;
/// 2. tasks run that are ready: one may submit what is to be waited for, or finish a request;
/// 3. the thread waits, but not beside a result that nobody has taken: with no other request under way that wait has no end;
/// 4. completions go to the queue and to tasks, which run until none is ready.
///
/// A device's queue goes the same way round, beginning with the wait (`Ublk/QueueLoop.swift`): its requests are completions.
public struct EngineDriver<S: Storage, Loop: EngineLoop> {
    public let queue: EngineQueue<S>
    public let loop: Loop

    /// - Parameter loop: runs the tasks of the queue's executor.
    public init(_ queue: EngineQueue<S>, on loop: Loop) {
        self.queue = queue
        self.loop = loop
    }

    /// - Parameter waits: whether to wait until there is something to handle. There must be something to wait for.
    @inline(__always)
    public func turn(waits: Bool) {
        queue.endOfBatch()
        loop.runReady()
        loop.turn(waits: waits && !queue.hasFinished) { token, result in queue.storageCompleted(token, result) }
    }

    /// Ends the queue, whose results that nobody has taken are nobody's any more. No request is under way.
    public func stop() {
        while queue.nextFinished() != nil {}
        queue.stop()
        // The parked ones end at once. They may be all: then nothing is left to wait for.
        loop.runReady()
        while !queue.isStopped { turn(waits: true) }
    }
}

extension EngineDriver where Loop == RingLoop {
    /// A queue on the ring of `loop`, with a storage of its own for each file of the chain.
    public init(image: Image, storages: ChainStorage<S>, depth: Int, largestRequestBytes: Int, on loop: RingLoop) {
        self.init(
            EngineQueue(
                image: image, storages: storages, depth: depth, largestRequestBytes: largestRequestBytes,
                executor: loop.executor),
            on: loop)
    }

    /// Makes everything durable, trims the image and marks it as clean (`EngineQueue.close`), and ends the queue, whatever
    /// comes of it.
    public func close() throws(RequestError) {
        defer { stop() }
        let queue = self.queue
        try loop.run({ () throws(RequestError) in try await queue.close() }, inline: queue.storageCompleted)
    }
}
