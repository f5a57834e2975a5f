import QEDEngine
import Ublk

/// A queue of a simulated machine: the engine's, and what the queue's loop knows of its requests, which it can be told to hold.
///
/// It does what `QueueLoop` does for a device, with the same ledger, and keeps to the same rules: requests that arrive while
/// it is held wait, and nothing that the engine does by itself begins once it is quiet.
final class SimulatedQueue {
    private(set) var engine: EngineQueue<SimulatedStorage>
    private var tags: TagLedger
    /// By tag, from a request's arrival on.
    private var requests: [BlockRequest]

    init(_ engine: EngineQueue<SimulatedStorage>) {
        self.engine = engine
        tags = TagLedger(depth: engine.depth)
        requests = Array(repeating: BlockRequest(.flush), count: engine.depth)
    }

    // MARK: - Requests

    /// A request has arrived. It is started, or kept.
    func arrive(_ tag: Int, _ request: BlockRequest) {
        requests[tag] = request
        if tags.arrive(tag) { engine.start(tag, request) }
    }

    func nextFinished() -> (slot: Int, result: Int32)? {
        guard let (tag, result) = engine.nextFinished() else { return nil }
        tags.finish(tag)
        return (tag, result)
    }

    /// Whether the tag's request arrived while the queue was held, and waits.
    func keeps(_ tag: Int) -> Bool { tags.owner(of: tag) == .kept }

    // MARK: - Between requests

    func endOfBatch() {
        if !isQuiet { engine.endOfBatch() }
    }

    func tick(_ now: UInt64) {
        if !isQuiet { engine.tick(now) }
    }

    // MARK: - Holding

    var isHeld: Bool { tags.admission == .holding }

    func hold() { tags.hold() }

    /// The top of the chain is another image, whose queue takes over. While this one is quiet.
    func switchTop(to next: EngineQueue<SimulatedStorage>) {
        precondition(isQuiet, "a switch under requests")
        engine = next
    }

    func resume() {
        for tag in tags.resume() { engine.start(tag, requests[tag]) }
    }

    /// Held, with no request under way, nor anything that the engine does by itself.
    var isQuiet: Bool { tags.isQuiet && engine.isQuiet }
}
