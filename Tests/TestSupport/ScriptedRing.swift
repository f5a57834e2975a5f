import Glibc
import IOURing
import Platform
import Ublk

/// A queue's ring whose kernel is the test: it delivers requests, takes answers and aborts tags as the test says.
///
/// The driver's part keeps the driver's rules and stops the test where the loop breaks them: a tag is fetched once, and
/// answered once for each request. Tasks, wakes and a target's own I/O go through a real ring. In a test of one thread `play`
/// is called, on the loop's thread, whenever the loop waits; without it the loop waits for other threads, which deliver
/// (`wake` follows each change).
public final class ScriptedRing: QueueRing, @unchecked Sendable {
    // SAFETY: `driver` is locked; the rest is the loop's thread's.
    public enum TagState: Equatable, Sendable {
        /// Not yet fetched, or answered and not yet submitted.
        case withLoop
        /// The driver may deliver a request.
        case idle
        case delivered
        /// The loop was told not to use it again.
        case retired
    }

    /// What the driver does with the commands that it gets.
    public enum Mood: Equatable, Sendable {
        case serving
        /// Whatever is idle, or becomes so, comes back aborted.
        case stopping
    }

    public struct Commit: Equatable, Sendable {
        public let tag: Int
        public let result: Int32

        public init(_ tag: Int, _ result: Int32) {
            self.tag = tag
            self.result = result
        }
    }

    private struct Driver: Sendable {
        var mood = Mood.serving
        var tags: [TagState]
        var requests: [RequestDescriptor]
        var completions: [(CompletionToken, Int32)] = []
        var commits: [Commit] = []
        /// A timer runs.
        var tick: CompletionToken?
        var hasEnded = false
    }

    private enum Command {
        case fetch(Int, CompletionToken)
        case commit(Int, Int32, CompletionToken)
    }

    public let depth: Int
    public let memory: RequestMemory?
    public let loop: RingLoop
    /// Called when the loop waits and nothing has completed. False: there will be nothing more.
    public var play: (() -> Bool)?
    /// How often the loop has waited for what would never come.
    public private(set) var vainWaits = 0
    private let sizePerTagBytes: Int
    private let buffers: UnsafeMutableRawPointer
    private let driver: Lock<Driver>
    private var prepared: [Command] = []
    private var early = EarlySubmission()
    /// How often it was submitted before the turn ended.
    public private(set) var earlySubmissions = 0
    private var tokens: [CompletionToken]

    /// On the thread that will run the loop.
    /// - Parameter memory: where the driver does not copy.
    public init(depth: Int, sizePerTagBytes: Int = 4096, memory: RequestMemory? = nil) throws {
        self.depth = depth
        self.memory = memory
        self.sizePerTagBytes = sizePerTagBytes
        loop = try RingLoop(entries: 64, completionEntries: 256)
        buffers = .allocate(byteCount: depth * sizePerTagBytes, alignment: 4096)
        buffers.initializeMemory(as: UInt8.self, repeating: 0, count: depth * sizePerTagBytes)
        tokens = Array(repeating: .wakeUp, count: depth)
        driver = Lock(
            Driver(
                tags: Array(repeating: .withLoop, count: depth),
                requests: Array(repeating: RequestDescriptor(.flush), count: depth)))
    }

    deinit { buffers.deallocate() }

    // MARK: The loop's side

    public var waker: @Sendable () -> Void { { [executor = loop.executor] in executor.wake() } }
    public func request(_ tag: Int) -> RequestDescriptor { driver.withLock { $0.requests[tag] } }
    public func buffer(_ tag: Int) -> UnsafeMutableRawPointer {
        precondition(memory == nil, "a tag's own memory, where there is none")
        return buffers + tag * sizePerTagBytes
    }
    public func fetch(_ tag: Int, token: CompletionToken) { prepared.append(.fetch(tag, token)) }

    public func commitAndFetch(_ tag: Int, result: Int32, token: CompletionToken) {
        prepared.append(.commit(tag, result, token))
    }

    public func awaitTick(token: CompletionToken) {
        driver.withLock { driver in
            precondition(driver.tick == nil, "two timers")
            driver.tick = token
        }
    }

    public func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void) {
        early.beginTurn()
        submit()
        if waits, let play, driver.withLock({ $0.completions.isEmpty }), !play() {
            vainWaits += 1
            precondition(vainWaits < 1000, "the loop waits for ever")
            stop()
        }
        let completions = driver.withLock { driver in
            defer { driver.completions = [] }
            return driver.completions
        }
        for (token, result) in completions { inline(token, result) }
        loop.turn(waits: waits && play == nil && completions.isEmpty, inline: inline)
    }

    public func runReady() { loop.executor.runReady() }

    public func end() {
        driver.withLock { driver in
            precondition(!driver.hasEnded, "ended twice")
            driver.hasEnded = true
        }
        // Nothing here is a driver's, to which it would matter whose thread closes the ring.
        loop.close()
    }

    public func submit() {
        for command in prepared {
            driver.withLock { driver in
                switch command {
                case .fetch(let tag, let token):
                    precondition(driver.tags[tag] == .withLoop, "fetched twice")
                    tokens[tag] = token
                    idle(tag, &driver)
                case .commit(let tag, let result, let token):
                    precondition(driver.tags[tag] == .delivered, "an answer to no request")
                    tokens[tag] = token
                    driver.commits.append(Commit(tag, result))
                    idle(tag, &driver)
                }
            }
        }
        prepared = []
    }

    private func idle(_ tag: Int, _ driver: inout Driver) {
        driver.tags[tag] = .idle
        if driver.mood == .stopping { abort(tag, &driver) }
    }

    private func abort(_ tag: Int, _ driver: inout Driver) {
        driver.tags[tag] = .retired
        driver.completions.append((tokens[tag], -ENODEV))
    }

    public func submitEarly() {
        guard early.add() else { return }
        earlySubmissions += 1
        submit()
    }

    // MARK: The driver's side, any thread

    public var commits: [Commit] { driver.withLock { $0.commits } }
    public var hasEnded: Bool { driver.withLock { $0.hasEnded } }
    public var hasTimer: Bool { driver.withLock { $0.tick != nil } }
    public func state(_ tag: Int) -> TagState { driver.withLock { $0.tags[tag] } }
    public var idleTags: [Int] { driver.withLock { driver in driver.tags.indices.filter { driver.tags[$0] == .idle } } }

    /// - Returns: false where the tag is not idle.
    @discardableResult
    public func deliver(_ tag: Int, _ request: RequestDescriptor) -> Bool {
        let isIdle = driver.withLock { driver in
            guard driver.tags[tag] == .idle else { return false }
            driver.tags[tag] = .delivered
            driver.requests[tag] = request
            driver.completions.append((tokens[tag], 0))
            return true
        }
        loop.executor.wake()
        return isIdle
    }

    /// The device is stopped.
    public func stop() {
        driver.withLock { driver in
            driver.mood = .stopping
            for tag in driver.tags.indices where driver.tags[tag] == .idle { abort(tag, &driver) }
        }
        loop.executor.wake()
    }

    /// The driver does not take the command of a tag that is idle.
    public func refuse(_ tag: Int, _ code: Int32) {
        driver.withLock { driver in
            precondition(driver.tags[tag] == .idle, "not idle")
            driver.tags[tag] = .retired
            driver.completions.append((tokens[tag], -code))
        }
        loop.executor.wake()
    }

    /// Has the loop end its wait, as whoever brings memory for it does.
    public func wake() { loop.executor.wake() }

    /// An operation of the target's has completed.
    public func complete(_ token: CompletionToken, _ result: Int32) {
        driver.withLock { $0.completions.append((token, result)) }
        loop.executor.wake()
    }

    /// The timer has ended.
    public func endTimer() {
        driver.withLock { driver in
            guard let tick = driver.tick else { return }
            driver.tick = nil
            driver.completions.append((tick, -ETIME))
        }
        loop.executor.wake()
    }

    /// What has completed reaches the loop in another order.
    public func reorder(_ shuffle: @Sendable (Int) -> Int) {
        driver.withLock { driver in
            for index in driver.completions.indices.dropLast() {
                let other = index + shuffle(driver.completions.count - index)
                driver.completions.swapAt(index, other)
            }
        }
    }
}
