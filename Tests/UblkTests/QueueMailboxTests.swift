import Glibc
import IOURing
import Platform
import TestSupport
import Testing

@testable import Ublk

/// What other threads say to a queue, at each moment of its life.
@Suite(.timeLimit(.minutes(2)))
struct QueueMailboxTests {
    private static let read = RequestDescriptor(.read, sizeBytes: 4096)

    @Test func whatIsAskedBeforeTheLoopRunsIsAnsweredByIt() throws {
        let queue = try PlayedQueue()
        let asked = Box<Int>()
        asked.answer = queue.mailbox.ask { target, _ in target.started.count }
        #expect(asked.value == nil)
        queue.run([{}, { #expect(asked.value == 0) }, { queue.ring.stop() }])
    }

    @Test func whatIsAskedOfAQueueThatHasEndedIsAnsweredWithThat() throws {
        let queue = try PlayedQueue()
        queue.run([{ queue.ring.stop() }])
        let (asked, held) = (Box<Int>(), Box<Void>())
        asked.answer = queue.mailbox.ask { _, _ in 1 }
        held.answer = queue.mailbox.hold()
        queue.mailbox.resume()
        #expect(asked.hasEnded && held.hasEnded)
    }

    /// The device stops in the turn in which the message comes.
    @Test func whatComesWithTheEndIsAnswered() throws {
        let queue = try PlayedQueue()
        let (asked, held) = (Box<Int>(), Box<Void>())
        queue.run([
            {
                queue.ring.stop()
                asked.answer = queue.mailbox.ask { _, _ in 1 }
            }
        ])
        #expect(asked.value == 1)
        let other = try PlayedQueue()
        other.run([
            {
                other.mailbox.leave()
                held.answer = other.mailbox.hold()
                other.mailbox.resume()
            }
        ])
        #expect(held.hasEnded && other.end == .left)
    }

    @Test func whatWasGivenUpOnIsNotDoneLater() throws {
        let queue = try PlayedQueue()
        let done = Lock<[Int]>([])
        let withdrawn = queue.mailbox.ask { _, _ in done.withLock { $0.append(1) } }
        let other = queue.mailbox.ask { _, _ in done.withLock { $0.append(2) } }
        #expect(withdrawn.waitOrWithdraw(timeout: .milliseconds(1)) == nil)
        queue.run([{}, { queue.ring.stop() }])
        #expect(done.withLock { $0 } == [2])
        guard case .done? = other.waitOrWithdraw(timeout: .milliseconds(1)) else {
            Issue.record("what was done is not answered")
            return
        }
    }

    /// What has begun is waited for: whoever gave it up could not tell whether it was done.
    @Test func whatHasBegunIsNotGivenUpOn() throws {
        let queue = try PlayedQueue()
        let hasBegun = Answer<Void>()
        let slow = queue.mailbox.ask { _, _ in
            hasBegun.give(())
            usleep(50_000)
            return 1
        }
        let ended = Answer<Bool>()
        let waiter = try BackgroundThread {
            _ = hasBegun.wait(timeout: .seconds(60))
            if case .done(1)? = slow.waitOrWithdraw(timeout: .milliseconds(1)) { ended.give(true) } else { ended.give(false) }
        }
        queue.run([{}, { queue.ring.stop() }])
        waiter.join()
        #expect(ended.wait(timeout: .seconds(60)) == true)
    }

    @Test func messagesAreTakenInOrder() throws {
        let queue = try PlayedQueue()
        let order = Lock<[Int]>([])
        queue.run([
            { for number in 0..<5 { _ = queue.mailbox.ask { _, _ in order.withLock { $0.append(number) } } } },
            { queue.ring.stop() },
        ])
        #expect(order.withLock { $0 } == [0, 1, 2, 3, 4])
    }

    @Test func aHeldQueueEndsWhatItHasAndKeepsTheRest() throws {
        let queue = try PlayedQueue()
        let held = Box<Void>()
        var batches = 0
        queue.run([
            { for tag in [0, 1] { queue.ring.deliver(tag, Self.read) } },
            { held.answer = queue.mailbox.hold() },
            { for tag in [3, 2] { queue.ring.deliver(tag, Self.read) } },
            { queue.target.finish(0) },
            { #expect(held.value == nil) },
            { queue.target.finish(1) },
            {
                #expect(held.value != nil && queue.target.started == [0, 1])
                // The tags that are answered are used again, and wait too.
                queue.ring.deliver(0, Self.read)
                batches = queue.target.batches
                queue.target.needsTick = true
            },
            { queue.ring.endTimer() },
            {
                // Nothing that the target might begin with.
                #expect(queue.target.batches == batches && queue.target.ticks == 0)
                queue.mailbox.resume()
            },
            {
                #expect(queue.target.started == [0, 1, 3, 2, 0])
                for tag in [0, 2, 3] { queue.target.finish(tag) }
            },
            { queue.ring.stop() },
        ])
        #expect(queue.ring.commits.count == 5 && queue.end == .stopped && queue.ring.vainWaits == 0)
    }

    @Test func whatTheTargetBeganByItselfIsWaitedForToo() throws {
        let queue = try PlayedQueue()
        let held = Box<Void>()
        queue.run([
            { queue.target.isBusy = true },
            { held.answer = queue.mailbox.hold() },
            { #expect(held.value == nil && queue.target.batches > 0) },
            {
                queue.target.isBusy = false
                queue.ring.complete(CompletionToken(kind: 1, slot: 0), 0)
            },
            { #expect(held.value != nil) },
            { queue.mailbox.resume() },
            { queue.ring.stop() },
        ])
        #expect(queue.end == .stopped)
    }

    /// A hold that was given up before the queue came to it.
    @Test func aHoldThatIsTakenBackAtOnceHoldsNothing() throws {
        let queue = try PlayedQueue()
        queue.run([
            { queue.ring.deliver(1, Self.read) },
            {
                _ = queue.mailbox.hold()
                queue.mailbox.resume()
                queue.ring.deliver(0, Self.read)
            },
            { #expect(queue.target.started == [1, 0]) },
            { for tag in [0, 1] { queue.target.finish(tag) } },
            { queue.ring.stop() },
        ])
        #expect(queue.ring.commits.count == 2)
    }

    @Test func aStoppedDeviceStaysHeldUntilItIsResumed() throws {
        let queue = try PlayedQueue()
        let held = Box<Void>()
        queue.run([
            { held.answer = queue.mailbox.hold() },
            { #expect(held.value != nil) },
            { queue.ring.deliver(2, Self.read) },
            { queue.ring.stop() },
            { #expect(!queue.target.isStopped) },
            { queue.mailbox.resume() },
            { queue.target.finish(2) },
        ])
        #expect(queue.ring.commits == [.init(2, 4096)] && queue.end == .stopped && queue.ring.vainWaits == 0)
    }

    /// The loop has nothing to wait for but the resumption.
    @Test func aStoppedDeviceWithoutRequestsStaysHeldToo() throws {
        let queue = try PlayedQueue()
        queue.run([
            { _ = queue.mailbox.hold() },
            { queue.ring.stop() },
            { #expect(!queue.target.isStopped) },
            { queue.mailbox.resume() },
        ])
        #expect(queue.end == .stopped && queue.ring.vainWaits == 0)
    }

    @Test func aServerThatDepartsWhileItsQueueIsHeldLeavesWhatWasKept() throws {
        let queue = try PlayedQueue()
        queue.run([
            { _ = queue.mailbox.hold() },
            { queue.ring.deliver(2, Self.read) },
            { queue.mailbox.leave() },
            { #expect(!queue.target.isStopped) },
            { queue.mailbox.resume() },
        ])
        #expect(queue.end == .left && queue.ring.vainWaits == 0)
        #expect(queue.target.started.isEmpty && queue.ring.state(2) == .delivered)
    }

    // MARK: Any order

    private struct Generator {
        var state: UInt64

        mutating func next(_ count: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int((state >> 33) % UInt64(count))
        }
    }

    /// Requests, results, holds, questions, timers and ends in a random order: each request that is started is answered once,
    /// with its own result; none is started on a queue that is quiet; the loop ends when it should, and everybody is answered.
    @Test(arguments: 0..<200) func anyOrder(seed: Int) throws {
        var random = Generator(state: UInt64(seed) &* 0x9e37_79b9_7f4a_7c15 &+ 1)
        let queue = try PlayedQueue(depth: 1 + random.next(6))
        let (ring, target, mailbox) = (queue.ring, queue.target, queue.mailbox)
        var (steps, holds, isLeaving) = (20 + random.next(60), 0, false)
        var holders: [Box<Void>] = []
        var questions: [Box<Int>] = []
        var delivered = 0
        var expected: [ScriptedRing.Commit] = []
        target.needsTick = random.next(2) == 0
        target.whenStarted = { _ in
            let quiet = holds > 0 && holders.last?.value != nil
            #expect(!quiet, "a request was started on a queue that is quiet")
        }
        func finishOne() {
            guard let tag = target.underWay.randomElement(by: random.next(64)) else { return }
            let result: Int32 = random.next(5) == 0 ? -EIO : 0
            expected.append(.init(tag, result < 0 ? result : Int32(ring.request(tag).sizeBytes)))
            target.finish(tag, result)
        }
        func act() {
            switch random.next(12) {
            case 0...3:
                for tag in ring.idleTags where random.next(2) == 0 {
                    if ring.deliver(tag, RequestDescriptor(.read, sizeBytes: 512 * (1 + random.next(8)))) { delivered += 1 }
                }
            case 4...6: finishOne()
            case 7 where holds == 0:
                let holder = Box<Void>()
                holders.append(holder)
                holds += 1
                holder.answer = mailbox.hold()
            case 8 where holds > 0:
                holds -= 1
                mailbox.resume()
            case 9:
                let question = Box<Int>()
                questions.append(question)
                question.answer = mailbox.ask { target, _ in target.started.count }
            case 10: target.isBusy.toggle()
            case 11: ring.endTimer()
            default: break
            }
            let first = random.next(1 << 30)
            ring.reorder { (first >> 3) % $0 }
        }
        /// True while there is something to wait for.
        func play() -> Bool {
            steps -= 1
            if steps > 0 {
                for _ in 0...random.next(3) { act() }
                return true
            }
            if steps == 0 {
                isLeaving = random.next(2) == 0
                if isLeaving { mailbox.leave() } else { ring.stop() }
                return true
            }
            target.isBusy = false
            if !target.underWay.isEmpty {
                finishOne()
            } else if holds > 0 {
                holds -= 1
                mailbox.resume()
            } else {
                return false
            }
            return true
        }
        queue.run(play)
        #expect(queue.end == (isLeaving ? .left : .stopped))
        #expect(ring.commits == expected)
        #expect(target.started.count == expected.count && target.isStopped && ring.hasEnded)
        if !isLeaving { #expect(expected.count == delivered) }
        for question in questions { #expect(question.value != nil || question.hasEnded) }
        #expect(ring.vainWaits == 0)
    }
}

extension Set where Element == Int {
    fileprivate func randomElement(by number: Int) -> Int? { isEmpty ? nil : sorted()[number % count] }
}
