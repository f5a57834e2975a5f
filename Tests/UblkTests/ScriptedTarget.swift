import IOURing
import TestSupport
import Ublk

/// A target that finishes requests when the test says so, and notes what it is asked.
final class ScriptedTarget: BlockTarget {
    private(set) var started: [Int] = []
    private(set) var underWay: Set<Int> = []
    /// Of those: where their data is.
    private(set) var data: [Int: RequestData] = [:]
    private var finished: [(tag: Int, result: Int32)] = []
    private(set) var completions: [(token: CompletionToken, result: Int32)] = []
    private(set) var batches = 0
    private(set) var ticks = 0
    /// Something of its own is under way.
    var isBusy = false
    var needsTick = false
    private(set) var isStopped = false
    /// A request was started since the last batch ended.
    private var isInBatch = false
    /// Called at each start.
    var whenStarted: (Int) -> Void = { _ in }

    func start(tag: Int, _ request: RequestDescriptor, _ data: RequestData) {
        precondition(underWay.insert(tag).inserted, "started twice")
        started.append(tag)
        isInBatch = true
        self.data[tag] = data
        whenStarted(tag)
    }

    func finish(_ tag: Int, _ result: Int32 = 0) {
        leave(tag)
        finished.append((tag, result))
    }

    /// Lets go of a request that waits for memory.
    func leave(_ tag: Int) {
        precondition(underWay.remove(tag) != nil, "not under way")
        data[tag] = nil
    }

    func completed(_ token: CompletionToken, _ result: Int32) { completions.append((token, result)) }

    func endOfBatch() {
        batches += 1
        isInBatch = false
    }

    /// The loop is about to wait: what it has to do before, it has done.
    func expectOrder() {
        precondition(!isInBatch, "the loop waits, and the batch has not ended")
        precondition(finished.isEmpty, "the loop waits beside a result")
    }

    func nextFinished() -> (tag: Int, result: Int32)? { finished.isEmpty ? nil : finished.removeFirst() }
    func tick(nowMilliseconds: UInt64) { ticks += 1 }
    var isQuiet: Bool { !isBusy }

    func stop() {
        precondition(underWay.isEmpty && !isStopped, "stopped with requests under way")
        isStopped = true
    }
}

/// A loop on a scripted ring, played step by step on the test's own thread.
final class PlayedQueue {
    let ring: ScriptedRing
    let target = ScriptedTarget()
    let mailbox = QueueMailbox<ScriptedTarget>()
    private(set) var end: QueueEnd?

    init(depth: Int = 4, memory: RequestMemory? = nil) throws { ring = try ScriptedRing(depth: depth, memory: memory) }

    /// Runs the loop to its end; each time that it waits it gets the next step.
    func run(_ steps: [() -> Void]) {
        var rest = steps[...]
        run {
            guard let step = rest.popFirst() else { return false }
            step()
            return true
        }
    }

    func run(_ play: @escaping () -> Bool) {
        ring.play = { [target] in
            target.expectOrder()
            return play()
        }
        end = QueueLoop(ring: ring, target: target, mailbox: mailbox).run()
        ring.play = nil
    }
}
