import SystemPackage
import TestSupport
import Testing

@testable import Ublk

/// The queue's loop of a device with zero copy, when memory is short: there is as much as for one request of each size until the
/// test brings more. The requests have pages that the kernel could not register, so they need memory at once.
@Suite(.timeLimit(.minutes(2)))
struct QueueLoopMemoryTests {
    private static let read = RequestDescriptor(.read, flags: .needsBufferRegistration, sizeBytes: 4096)
    private static let write = RequestDescriptor(.write, flags: .needsBufferRegistration, sizeBytes: 512)
    private static let large = RequestDescriptor(.write, flags: .needsBufferRegistration, sizeBytes: 8192)
    private static let registered = RequestDescriptor(.read, sizeBytes: 4096)

    private func play(_ steps: (LendingQueue, PlayedQueue) -> [() -> Void]) throws -> LendingQueue {
        let queue = try LendingQueue()
        queue.played.run(steps(queue, queue.played))
        #expect(queue.played.ring.vainWaits == 0 && queue.played.target.underWay.isEmpty)
        queue.close()
        return queue
    }

    @Test func requestsWithoutMemoryWaitInTurnForThoseThatHaveSome() throws {
        let queue = try play { _, queue in
            [
                { for tag in [2, 0, 3, 1] { queue.ring.deliver(tag, Self.read) } },
                {
                    #expect(queue.target.started == [2])
                    queue.target.finish(2)
                },
                {
                    #expect(queue.target.started == [2, 0])
                    // A tag's next request comes after those that wait.
                    queue.ring.deliver(2, Self.write)
                },
                { queue.target.finish(0) },
                { queue.target.finish(3, -5) },
                { queue.target.finish(1) },
                { queue.target.finish(2) },
                { queue.ring.stop() },
            ]
        }
        #expect(queue.played.target.started == [2, 0, 3, 1, 2])
        #expect(queue.played.ring.commits == [.init(2, 4096), .init(0, 4096), .init(3, -5), .init(1, 4096), .init(2, 512)])
        #expect(queue.played.end == .stopped)
    }

    @Test func memoryThatComesIsGivenToThoseThatWait() throws {
        let queue = try play { queue, played in
            [
                { for tag in 0..<4 { played.ring.deliver(tag, Self.large) } },
                {
                    #expect(played.target.started == [0] && queue.slots.asked.count == 3)
                    queue.slots.bringAll()
                    played.ring.wake()
                },
                {
                    #expect(played.target.started == [0, 1, 2, 3])
                    #expect(Set(played.target.data.values.map { "\($0)" }).count == 4)
                    for tag in [3, 0, 1, 2] { played.target.finish(tag) }
                },
                { played.ring.stop() },
            ]
        }
        #expect(queue.played.end == .stopped && queue.played.ring.commits.count == 4)
    }

    /// What is started when a turn is almost over may have something planned for the end of the batch.
    @Test func theTargetHasItsEndOfTheBatchForThoseThatHaveWaited() throws {
        var batches = 0
        _ = try play { _, queue in
            queue.target.whenStarted = { tag in if tag == 1 { batches = queue.target.batches } }
            return [
                { for tag in 0..<2 { queue.ring.deliver(tag, Self.read) } },
                { queue.target.finish(0) },
                {
                    #expect(queue.target.started == [0, 1] && queue.target.batches > batches)
                    queue.target.finish(1)
                },
                { queue.ring.stop() },
            ]
        }
    }

    @Test func requestsWithoutDataNeedNoMemory() throws {
        _ = try play { _, queue in
            [
                {
                    queue.ring.deliver(0, Self.read)
                    queue.ring.deliver(1, RequestDescriptor(.flush))
                    queue.ring.deliver(2, RequestDescriptor(.discard, sizeBytes: 1 << 20))
                    queue.ring.deliver(3, RequestDescriptor(.writeZeroes, sizeBytes: 1 << 20))
                },
                {
                    #expect(queue.target.started == [0, 1, 2, 3])
                    for tag in 1...3 { #expect(queue.target.data[tag] == RequestData.none) }
                    for tag in 0...3 { queue.target.finish(tag) }
                },
                { queue.ring.stop() },
            ]
        }
    }

    /// They were delivered, so the kernel waits for their answers.
    @Test func aDeviceThatStopsWaitsForThoseThatWaitForMemory() throws {
        let queue = try play { _, queue in
            [
                { for tag in 0..<3 { queue.ring.deliver(tag, Self.read) } },
                { queue.ring.stop() },
                { queue.target.finish(0) },
                { queue.target.finish(1) },
                {
                    #expect(queue.end == nil)
                    queue.target.finish(2)
                },
            ]
        }
        #expect(queue.played.end == .stopped && queue.played.target.isStopped)
        #expect(queue.played.ring.commits == [.init(0, 4096), .init(1, 4096), .init(2, 4096)])
    }

    @Test func aServerThatDepartsAnswersThoseThatWaitForMemory() throws {
        let queue = try play { _, queue in
            [
                { for tag in 0..<3 { queue.ring.deliver(tag, Self.read) } },
                { queue.mailbox.leave() },
                {
                    queue.ring.deliver(3, Self.write)
                    queue.target.finish(0)
                },
                { queue.target.finish(1) },
                {
                    #expect(queue.end == nil)
                    queue.target.finish(2)
                },
            ]
        }
        #expect(queue.played.end == .left)
        #expect(queue.played.ring.commits.map(\.tag) == [0, 1, 2])
        #expect(queue.played.ring.state(3) == .delivered)
    }

    @Test func aHeldQueueIsQuietWhenNobodyWaitsForMemory() throws {
        let held = Box<Void>()
        let queue = try play { _, queue in
            [
                { for tag in 0..<2 { queue.ring.deliver(tag, Self.read) } },
                { held.answer = queue.mailbox.hold() },
                {
                    #expect(held.value == nil)
                    queue.ring.deliver(2, Self.write)
                    queue.ring.deliver(3, Self.write)
                    queue.target.finish(0)
                },
                {
                    // It had arrived before.
                    #expect(queue.target.started == [0, 1] && held.value == nil)
                    queue.target.finish(1)
                },
                {
                    #expect(held.value != nil && queue.target.started == [0, 1])
                    queue.mailbox.resume()
                },
                {
                    #expect(queue.target.started == [0, 1, 2])
                    queue.target.finish(2)
                },
                { queue.target.finish(3) },
                { queue.ring.stop() },
            ]
        }
        #expect(queue.played.end == .stopped && queue.played.ring.commits.count == 4)
    }

    @Test func pagesNeedNoMemoryUnlessTheyCouldNotBeRegistered() throws {
        let queue = try play { _, queue in
            [
                {
                    for tag in 0..<2 { queue.ring.deliver(tag, Self.registered) }
                    for tag in 2..<4 { queue.ring.deliver(tag, Self.read) }
                },
                {
                    #expect(queue.target.started == [0, 1, 2])
                    #expect(queue.target.data[0] == .pages && queue.target.data[1] == .pages)
                    #expect(queue.target.data[2] != .pages)
                    for tag in 0..<3 { queue.target.finish(tag) }
                },
                {
                    #expect(queue.target.started == [0, 1, 2, 3] && queue.target.data[3] != .pages)
                    queue.target.finish(3)
                },
                { queue.ring.stop() },
            ]
        }
        #expect(queue.played.ring.commits.count == 4)
    }

    /// As the engine does it: a request that it has begun turns out to need memory.
    @Test func aTargetThatCannotBorrowMemoryGetsTheRequestAgain() throws {
        let queue = try play { queue, played in
            [
                { for tag in 0..<2 { played.ring.deliver(tag, Self.registered) } },
                {
                    #expect(queue.memory.borrow(0, isWrite: false, sizeBytes: 4096) != .deferred)
                    #expect(queue.memory.borrow(1, isWrite: false, sizeBytes: 4096) == .deferred)
                    played.target.leave(1)
                    played.ring.wake()
                },
                {
                    #expect(played.target.started == [0, 1])
                    played.target.finish(0)
                },
                {
                    #expect(played.target.started == [0, 1, 1] && played.target.data[1] != .pages)
                    played.target.finish(1)
                },
                { played.ring.stop() },
            ]
        }
        #expect(queue.played.ring.commits == [.init(0, 4096), .init(1, 4096)])
    }

    @Test func memoryThatNobodyNeedsGoesBackWithTheTicks() throws {
        let queue = try LendingQueue()
        let ring = queue.played.ring
        let target = queue.played.target
        var ticks = 0
        var steps = [
            { for tag in 0..<2 { ring.deliver(tag, Self.large) } },
            {
                queue.slots.bringAll()
                ring.wake()
            },
            { for tag in 0..<2 { target.finish(tag) } },
        ][...]
        queue.played.run {
            if let step = steps.popFirst() {
                step()
            } else if ring.hasTimer {
                ticks += 1
                ring.endTimer()
            } else {
                ring.stop()
            }
            return ticks < 100
        }
        #expect(queue.slots.removed.count == 1 && ticks >= BufferPool.idleTicks)
        #expect(target.ticks == 0 && queue.played.end == .stopped)
        queue.close()
    }
}
