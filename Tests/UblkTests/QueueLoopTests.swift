import Glibc
import IOURing
import SystemPackage
import TestSupport
import Testing

@testable import Ublk

/// The queue's loop, with the kernel and the target played by the test.
@Suite(.timeLimit(.minutes(2)))
struct QueueLoopTests {
    private static let read = RequestDescriptor(.read, deviceOffset: 8192, sizeBytes: 4096)
    private static let write = RequestDescriptor(.write, deviceOffset: 4096, sizeBytes: 1024)

    @Test func requestsAreAnsweredInWhateverOrderTheyEnd() throws {
        let queue = try PlayedQueue()
        queue.run([
            {
                for tag in [2, 0, 3] { queue.ring.deliver(tag, Self.read) }
                queue.ring.deliver(1, RequestDescriptor(.flush))
            },
            { for tag in [1, 3] { queue.target.finish(tag) } },
            {
                queue.target.finish(0, -ENOSPC)
                queue.target.finish(2)
            },
            { queue.ring.stop() },
        ])
        #expect(queue.end == .stopped && queue.ring.vainWaits == 0)
        #expect(queue.target.started == [2, 0, 3, 1])
        // The whole size, or 0 where there is none, or the error.
        #expect(queue.ring.commits == [.init(1, 0), .init(3, 4096), .init(0, -ENOSPC), .init(2, 4096)])
        #expect(queue.target.isStopped && queue.ring.hasEnded)
    }

    /// A tag's next request may be there with the completions that the answer to its last one came with.
    @Test func aTagIsUsedAgainAtOnce() throws {
        let queue = try PlayedQueue(depth: 1)
        queue.run([
            { queue.ring.deliver(0, Self.write) },
            { queue.target.finish(0) },
            { queue.ring.deliver(0, Self.read) },
            { queue.target.finish(0) },
            { queue.ring.stop() },
        ])
        #expect(queue.ring.commits == [.init(0, 1024), .init(0, 4096)])
        #expect(queue.end == .stopped)
    }

    /// Short, failed and cancelled operations are the target's own affair; so are tokens of its kinds.
    @Test func theTargetGetsItsOwnCompletions() throws {
        let queue = try PlayedQueue()
        let token = CompletionToken(kind: 1, slot: 3, detail: 4096)
        queue.run([
            { queue.ring.deliver(3, Self.read) },
            { queue.ring.complete(token, 512) },
            { queue.ring.complete(token, -ECANCELED) },
            { queue.target.finish(3, -EIO) },
            { queue.ring.stop() },
        ])
        #expect(queue.target.completions.map(\.token) == [token, token])
        #expect(queue.target.completions.map(\.result) == [512, -ECANCELED])
        #expect(queue.ring.commits == [.init(3, -EIO)])
    }

    @Test func aStoppedDeviceWaitsForWhatIsUnderWay() throws {
        let queue = try PlayedQueue()
        queue.run([
            { queue.ring.deliver(1, Self.write) },
            { queue.ring.stop() },
            {
                #expect(queue.end == nil && !queue.target.isStopped)
                queue.target.finish(1)
            },
        ])
        #expect(queue.ring.commits == [.init(1, 1024)])
        #expect(queue.end == .stopped && queue.ring.vainWaits == 0)
    }

    @Test func aRefusedCommandIsToldAndEndsTheQueueWithTheDevice() throws {
        let queue = try PlayedQueue()
        queue.run([
            { queue.ring.refuse(2, EINVAL) },
            { queue.ring.refuse(0, EPERM) },
            { queue.ring.deliver(1, Self.read) },
            { queue.target.finish(1) },
            { queue.ring.stop() },
        ])
        #expect(queue.end == .refused(tag: 2, errno: .invalidArgument))
        #expect(queue.ring.commits == [.init(1, 4096)])
    }

    @Test func aServerThatDepartsAnswersWhatItHasAndLeavesTheRest() throws {
        let queue = try PlayedQueue()
        queue.run([
            { for tag in [0, 1] { queue.ring.deliver(tag, Self.read) } },
            { queue.mailbox.leave() },
            // Late ones, one beside the answer that lets the server go.
            { queue.ring.deliver(2, Self.write) },
            { queue.target.finish(1) },
            {
                queue.ring.deliver(3, Self.write)
                queue.target.finish(0)
            },
        ])
        #expect(queue.end == .left && queue.ring.vainWaits == 0)
        #expect(queue.target.started == [0, 1])
        #expect(queue.ring.commits == [.init(1, 4096), .init(0, 4096)])
        #expect(queue.ring.state(2) == .delivered && queue.ring.state(3) == .delivered)
    }

    /// What the target gives up as the server departs is not answered, held or not; an error of that kind at other times is one.
    @Test(arguments: [false, true]) func whatIsGivenUpIsLeftToTheNextServer(isHeld: Bool) throws {
        let queue = try PlayedQueue(depth: 3)
        queue.run([
            { for tag in [0, 1, 2] { queue.ring.deliver(tag, Self.read) } },
            { queue.target.finish(2, -ECANCELED) },
            {
                if isHeld { _ = queue.mailbox.hold() }
                queue.mailbox.leave()
            },
            { queue.target.finish(0, -ECANCELED) },
            { queue.target.finish(1) },
            { if isHeld { queue.mailbox.resume() } },
        ])
        #expect(queue.end == .left && queue.ring.vainWaits == 0)
        #expect(queue.ring.commits == [.init(2, -ECANCELED), .init(1, 4096)])
        #expect(queue.ring.state(0) == .delivered)
    }

    @Test func aDeviceThatStopsWhileItsServerDepartsIsStopped() throws {
        let queue = try PlayedQueue(depth: 2)
        queue.run([
            { queue.ring.deliver(0, Self.read) },
            {
                queue.mailbox.leave()
                queue.ring.stop()
            },
            { queue.target.finish(0) },
        ])
        // Its answer was sent; whether the tag came back before the end does not matter.
        #expect(queue.ring.commits == [.init(0, 4096)] && queue.ring.vainWaits == 0)
        #expect(queue.end == .left || queue.end == .stopped)
    }

    @Test func ticksComeWhileTheTargetWantsThem() throws {
        let queue = try PlayedQueue()
        queue.run([
            { #expect(!queue.ring.hasTimer) },
            {
                queue.target.needsTick = true
                queue.ring.deliver(0, RequestDescriptor(.flush))
            },
            {
                #expect(queue.ring.hasTimer && queue.target.ticks == 1)
                queue.ring.endTimer()
            },
            {
                #expect(queue.ring.hasTimer && queue.target.ticks == 2)
                queue.target.needsTick = false
                queue.ring.endTimer()
            },
            { #expect(!queue.ring.hasTimer && queue.target.ticks == 2) },
            { queue.target.finish(0) },
            { queue.ring.stop() },
        ])
        #expect(queue.end == .stopped)
    }

    @Test func requestsAreCounted() throws {
        let queue = try PlayedQueue(depth: 8)
        let asked = Box<QueueStatistics>()
        queue.run([
            {
                for tag in 0..<2 { queue.ring.deliver(tag, Self.read) }
                queue.ring.deliver(2, Self.write)
                queue.ring.deliver(3, RequestDescriptor(.flush))
                queue.ring.deliver(4, RequestDescriptor(.discard, sizeBytes: 65536))
                queue.ring.deliver(5, RequestDescriptor(.writeZeroes, sizeBytes: 65536))
                queue.ring.deliver(6, RequestDescriptor(.other(18)))
            },
            {
                for tag in [0, 2, 6] { queue.target.finish(tag, tag == 6 ? -EOPNOTSUPP : 0) }
                asked.answer = queue.mailbox.ask { _, statistics in statistics }
            },
            { for tag in [1, 3, 4, 5] { queue.target.finish(tag) } },
            { queue.ring.stop() },
        ])
        let figures = try #require(asked.value)
        #expect(figures.reads == 2 && figures.readBytes == 8192)
        #expect(figures.writes == 1 && figures.writtenBytes == 1024)
        #expect(figures.flushes == 1 && figures.discards == 1 && figures.zeroings == 1)
        #expect(figures.underWay == 7 || figures.underWay == 4)
        #expect(figures.largestUnderWay == 7)
        #expect(figures.turns > 0)
    }

    /// What `NullTarget` takes is answered in the turn in which it came.
    @Test func theSmallestTargetTakesEverything() throws {
        let ring = try ScriptedRing(depth: 2)
        var rounds = 0
        ring.play = {
            rounds += 1
            if rounds > 3 { ring.stop() } else { for tag in 0..<2 { #expect(ring.deliver(tag, Self.read)) } }
            return rounds < 10
        }
        let end = QueueLoop(ring: ring, target: NullTarget(), mailbox: QueueMailbox()).run()
        #expect(end == .stopped && ring.commits.count == 6)
        #expect(ring.commits.allSatisfy { $0.result == 4096 })
    }
}

/// What a mailbox will answer.
final class Box<Value: Sendable> {
    var answer: Answer<QueueReply<Value>>?

    var value: Value? {
        guard case .done(let value) = answer?.wait(timeout: .zero) else { return nil }
        return value
    }

    var hasEnded: Bool { if case .ended = answer?.wait(timeout: .zero) { true } else { false } }
}
