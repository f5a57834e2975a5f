import Glibc
import IOURing
import Platform
import Synchronization
import TestSupport
import Testing

@testable import Ublk

/// All queues of a device at once, each on a thread of its own, as a server has them.
@Suite(.timeLimit(.minutes(2)))
struct DeviceQueuesTests {
    /// Has each request for a few turns, or until it is told to let go of them.
    private final class SlowTarget: BlockTarget, @unchecked Sendable {
        // SAFETY: but for the atomics everything is the queue's thread's.
        let requestCount = Atomic(0)
        let isStuck = Atomic(false)
        private var waiting: [Int] = []
        private var finished: [Int] = []
        private var turns = 0

        func start(tag: Int, _ request: RequestDescriptor, _ data: RequestData) {
            requestCount.add(1, ordering: .sequentiallyConsistent)
            waiting.append(tag)
        }

        func endOfBatch() {
            turns += 1
            guard turns % 3 == 0, !isStuck.load(ordering: .sequentiallyConsistent) else { return }
            requestCount.subtract(waiting.count, ordering: .sequentiallyConsistent)
            finished += waiting
            waiting = []
        }

        func nextFinished() -> (tag: Int, result: Int32)? { finished.popLast().map { ($0, 0) } }
        func completed(_ token: CompletionToken, _ result: Int32) {}
        var needsTick: Bool { false }
        func tick(nowMilliseconds: UInt64) {}
        var isQuiet: Bool { true }
        func stop() {}
        var isStopped: Bool { true }
    }

    /// The queues' threads, and one that plays the driver of all.
    private final class ServedQueues: Sendable {
        let queues = DeviceQueues<SlowTarget>(count: 3)
        let parts: [(ring: ScriptedRing, target: SlowTarget)]
        private let threads: [BackgroundThread]
        private let ends: [Answer<QueueEnd>]
        private let isOver = Atomic(false)
        private let isStopping = Atomic(false)
        private let driver: Lock<BackgroundThread?>

        init() throws {
            var parts: [(ring: ScriptedRing, target: SlowTarget)] = []
            var threads: [BackgroundThread] = []
            var ends: [Answer<QueueEnd>] = []
            for mailbox in queues.mailboxes {
                let (made, end) = (Answer<ScriptedRing?>(), Answer<QueueEnd>())
                let target = SlowTarget()
                threads.append(
                    try BackgroundThread {
                        let ring = try? ScriptedRing(depth: 8)
                        made.give(ring)
                        guard let ring else { return }
                        end.give(QueueLoop(ring: ring, target: target, mailbox: mailbox).run())
                    })
                ends.append(end)
                parts.append((try #require(made.wait(timeout: .seconds(60)) ?? nil), target))
            }
            self.parts = parts
            self.threads = threads
            self.ends = ends
            driver = Lock(nil)
            let thread = try BackgroundThread { [self] in drive() }
            driver.withLock { $0 = thread }
        }

        private func drive() {
            while !isOver.load(ordering: .acquiring) {
                for (ring, _) in parts {
                    if isStopping.load(ordering: .acquiring) {
                        ring.stop()
                    } else {
                        for tag in ring.idleTags { ring.deliver(tag, RequestDescriptor(.read, sizeBytes: 512)) }
                    }
                    // Another turn, in which the target may finish what it has.
                    ring.waker()
                }
                usleep(100)
            }
        }

        /// The device is stopped, and every queue ends.
        func stop() -> [QueueEnd?] {
            isStopping.store(true, ordering: .releasing)
            return finish()
        }

        /// Waits for the ends, with the driver at work.
        func finish() -> [QueueEnd?] {
            let values = ends.map { $0.wait(timeout: .seconds(60)) }
            for thread in threads { thread.join() }
            isOver.store(true, ordering: .releasing)
            driver.withLock { $0 }?.join()
            return values
        }

        var answeredCount: Int { parts.reduce(0) { $0 + $1.ring.commits.count } }

        /// Until every queue has answered something more.
        func waitForAnswers() {
            let before = parts.map(\.ring.commits.count)
            while zip(parts, before).contains(where: { $0.ring.commits.count <= $1 }) { usleep(100) }
        }
    }

    @Test func nothingIsUnderWayWhileTheQueuesAreQuiet() throws {
        let served = try ServedQueues()
        for _ in 0..<50 {
            served.waitForAnswers()
            let seen = try served.queues.whileQuiet(timeout: .seconds(60)) { () -> [Int] in
                let before = served.answeredCount
                usleep(300)
                return served.parts.map { $0.target.requestCount.load(ordering: .sequentiallyConsistent) }
                    + [served.answeredCount - before]
            }
            #expect(seen == [0, 0, 0, 0])
        }
        served.waitForAnswers()
        #expect(served.stop() == [.stopped, .stopped, .stopped])
    }

    @Test func aQueueWhoseRequestsDoNotEndKeepsNobodyWaiting() throws {
        let served = try ServedQueues()
        served.waitForAnswers()
        let stuck = served.parts[1].target
        stuck.isStuck.store(true, ordering: .sequentiallyConsistent)
        while stuck.requestCount.load(ordering: .sequentiallyConsistent) == 0 { usleep(100) }
        #expect(throws: QueueSilence.late(queue: 1)) {
            // The others are quiet soon.
            try served.queues.whileQuiet(timeout: .milliseconds(200)) { Issue.record("it is not quiet") }
        }
        let before = served.parts.map(\.ring.commits.count)
        while served.parts[0].ring.commits.count == before[0] || served.parts[2].ring.commits.count == before[2] { usleep(100) }
        stuck.isStuck.store(false, ordering: .sequentiallyConsistent)
        served.waitForAnswers()
        #expect(try served.queues.whileQuiet(timeout: .seconds(60)) { 7 } == 7)
        #expect(served.stop() == [.stopped, .stopped, .stopped])
    }

    @Test func aQueueThatHasEndedKeepsNobodyWaiting() throws {
        let served = try ServedQueues()
        served.waitForAnswers()
        served.queues.mailboxes[2].leave()
        while !served.parts[2].ring.hasEnded { usleep(100) }
        #expect(throws: QueueSilence.ended(queue: 2)) {
            try served.queues.whileQuiet(timeout: .seconds(60)) { Issue.record("a queue is gone") }
        }
        #expect(throws: QueueSilence.ended(queue: 2)) { try served.queues.ask(timeout: .seconds(60)) { _, _ in 1 } }
        let before = served.parts[0].ring.commits.count
        while served.parts[0].ring.commits.count == before { usleep(100) }
        #expect(served.stop() == [.stopped, .stopped, .left])
    }

    /// Whatever happens to the device meanwhile waits until they go on.
    @Test func queuesEndAfterTheyWereHeld() throws {
        let served = try ServedQueues()
        served.waitForAnswers()
        try served.queues.whileQuiet(timeout: .seconds(60)) {
            served.queues.leave()
            usleep(20_000)
            #expect(served.parts.allSatisfy { !$0.ring.hasEnded })
        }
        #expect(served.finish() == [.left, .left, .left])
    }

    @Test func oneHoldsThemAtATime() throws {
        let served = try ServedQueues()
        try served.queues.whileQuiet(timeout: .seconds(60)) {
            #expect(throws: QueueSilence.held) { try served.queues.whileQuiet(timeout: .seconds(60)) {} }
            // But they can be asked.
            #expect(throws: Never.self) { try served.queues.ask(timeout: .seconds(60)) { _, figures in figures.turns } }
        }
        #expect(served.stop() == [.stopped, .stopped, .stopped])
    }

    @Test func figuresComeFromEachQueue() throws {
        let served = try ServedQueues()
        served.waitForAnswers()
        let figures = try served.queues.ask(timeout: .seconds(60)) { target, figures in figures }
        #expect(figures.count == 3 && figures.allSatisfy { $0.reads > 0 && $0.readBytes == $0.reads * 512 && $0.writes == 0 })
        _ = served.stop()
    }
}
