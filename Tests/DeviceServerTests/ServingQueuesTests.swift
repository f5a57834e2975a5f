import BlockStorage
import Glibc
import IOURing
import Platform
import QEDChain
import QEDEngine
import TestSupport
import Testing

@testable import DeviceServer
@testable import Ublk

/// The engine behind the queues' loops, as a device's server has it, with the driver played by the test: several queues write
/// to one image while they are held, asked, and left.
@Suite(.timeLimit(.minutes(5)))
struct ServingQueuesTests {
    private static let queueCount = 3
    private static let depth = 8
    private static let blockBytes = 4096
    /// Each tag writes to blocks of its own.
    private static let blocksPerTag = 200

    private let directory: TemporaryDirectory
    private let chain: [LayerFile]
    private let image: Image
    private let queues = DeviceQueues<EngineTarget<FileStorage>>(count: queueCount)

    init() throws {
        directory = try TemporaryDirectory()
        let path = directory.path("image.qed")
        _ = try ImageCreation(path: path, sizeBytes: 64 << 20).create()
        let chain = try ImageChain.open(path: path, isReadOnly: false)
        self.chain = chain
        let loop = try RingLoop(entries: 64, completionEntries: 256)
        defer { loop.close() }
        let storages = chain.storages(on: loop.ring)
        image = try loop.run { () throws(ImageOpenError) in
            try await Image.open(chain: chain.map(\.layer), storages: storages, options: ImageOptions())
        }
    }

    /// A queue's thread.
    private struct Queue {
        let ring: ScriptedRing
        let thread: BackgroundThread
        let end: Answer<QueueEnd>
    }

    private func serve() throws -> [Queue] {
        try queues.mailboxes.map { mailbox in
            let (made, end) = (Answer<ScriptedRing?>(), Answer<QueueEnd>())
            let thread = try BackgroundThread { [image, chain] in
                let ring = try? ScriptedRing(depth: Self.depth, sizePerTagBytes: Self.blockBytes)
                made.give(ring)
                guard let ring else { return }
                let engine = EngineQueue(
                    image: image, storages: chain.storages(on: ring.loop.ring), depth: Self.depth,
                    largestRequestBytes: Self.blockBytes, executor: ring.loop.executor)
                let target = EngineTarget(
                    engine: engine, of: image, ring: ring.loop.ring, memory: nil, whenFailed: {})
                end.give(QueueLoop(ring: ring, target: target, mailbox: mailbox).run())
            }
            return Queue(ring: try #require(made.wait(timeout: .seconds(60)) ?? nil), thread: thread, end: end)
        }
    }

    private static func place(queue: Int, tag: Int, number: Int) -> UInt64 {
        UInt64(((number * queueCount + queue) * depth + tag) * blockBytes)
    }

    private static func byte(queue: Int, tag: Int, number: Int) -> UInt8 {
        UInt8(truncatingIfNeeded: 1 + queue + tag * 7 + number * 31)
    }

    /// Gives every idle tag its next write, and some a flush, until all is written or `ends` says so.
    /// - Returns: how many writes each tag was given.
    private static func feed(_ queues: [Queue], until ends: () -> Bool) -> [[Int]] {
        var given = Array(repeating: Array(repeating: 0, count: depth), count: queueCount)
        var flushNext = 0
        while !ends() {
            for (number, queue) in queues.enumerated() {
                for tag in queue.ring.idleTags where given[number][tag] < blocksPerTag {
                    flushNext += 1
                    if flushNext % 50 == 0 {
                        queue.ring.deliver(tag, RequestDescriptor(.flush))
                        continue
                    }
                    let count = given[number][tag]
                    queue.ring.buffer(tag).initializeMemory(
                        as: UInt8.self, repeating: byte(queue: number, tag: tag, number: count), count: blockBytes)
                    queue.ring.deliver(
                        tag,
                        RequestDescriptor(
                            .write, deviceOffset: place(queue: number, tag: tag, number: count), sizeBytes: blockBytes))
                    given[number][tag] += 1
                }
            }
            usleep(50)
        }
        return given
    }

    private func close() throws {
        let loop = try RingLoop(entries: 64, completionEntries: 256)
        defer { loop.close() }
        let driver = EngineDriver(
            image: image, storages: chain.storages(on: loop.ring), depth: 1, largestRequestBytes: 1 << 20,
            on: loop)
        try driver.close()
        for file in chain { file.file.releaseLock() }
    }

    @Test func queuesAreHeldAgainAndAgainWhileTheyWrite() throws {
        let served = try serve()
        let isOver = Lock(false)
        let given = Lock<[[Int]]>([])
        let fed = Answer<Bool>()
        let feeder = try BackgroundThread {
            let counts = Self.feed(served) { isOver.withLock { $0 } }
            given.withLock { $0 = counts }
            fed.give(true)
        }
        for round in 0..<100 {
            guard case .success(let pause) = DeviceReplies.pause(queues) else {
                Issue.record("round \(round)")
                continue
            }
            #expect(pause["microseconds"]?.integer(as: UInt64.self) != nil)
            let quiet = try queues.whileQuiet(timeout: .seconds(60)) {
                let before = served.map(\.ring.commits.count)
                usleep(200)
                return before == served.map(\.ring.commits.count)
            }
            #expect(quiet)
        }
        isOver.withLock { $0 = true }
        _ = fed.wait(timeout: .seconds(60))
        feeder.join()
        let counts = given.withLock { $0 }

        // Whatever was asked for is done, and counted where it was done.
        while served.contains(where: { $0.ring.idleTags.count < Self.depth }) { usleep(100) }
        guard case .success(let figures) = DeviceReplies.figures(of: queues, "/dev/ublkb9") else {
            Issue.record("no figures")
            return
        }
        let total = counts.reduce(0) { $0 + $1.reduce(0, +) }
        #expect(figures["requests"]?["writes"]?.integer(as: Int.self) == total && total > 0)
        #expect(figures["requests"]?["written-bytes"]?.integer(as: Int.self) == total * Self.blockBytes)
        #expect(figures["requests"]?["failures"]?.integer(as: Int.self) == 0)
        guard case .array(let each)? = figures["queues"] else {
            Issue.record("no queues")
            return
        }
        #expect(each.map { $0["requests"]?["writes"]?.integer(as: Int.self) } == counts.map { $0.reduce(0, +) })
        #expect((figures["storage-operations"]?["data-writes"]?.integer(as: Int.self) ?? 0) > 0)
        #expect(figures["cache"]?["hits"]?.integer(as: Int.self) == total && figures["cache"]?["misses"] == 0)
        #expect(figures["commit-microseconds"]?["commit"]?["count"] == figures["storage-operations"]?["commits"])

        queues.leave()
        for queue in served { #expect(queue.end.wait(timeout: .seconds(60)) == .left) }
        for queue in served { queue.thread.join() }
        guard case .failure(.unavailable, _) = DeviceReplies.figures(of: queues, "") else {
            Issue.record("queues that have ended count nothing")
            return
        }
        try close()
        try expectWritten(counts)
    }

    /// What each tag has written, in a second engine.
    private func expectWritten(_ counts: [[Int]]) throws {
        let engine = try LocalEngine(path: directory.path("image.qed"), options: ImageOptions(isReadOnly: true), depth: 4)
        defer { engine.abandon() }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.blockBytes, alignment: 4096)
        defer { buffer.deallocate() }
        var wrong = 0
        for queue in 0..<Self.queueCount {
            for tag in 0..<Self.depth {
                for number in 0..<counts[queue][tag] {
                    let read = BlockRequest(
                        .read, deviceOffset: Self.place(queue: queue, tag: tag, number: number),
                        byteCount: UInt64(Self.blockBytes), buffer: buffer.baseAddress)
                    #expect(engine.perform([read]) == [0])
                    let byte = Self.byte(queue: queue, tag: tag, number: number)
                    if !buffer.allSatisfy({ $0 == byte }) { wrong += 1 }
                }
            }
        }
        #expect(wrong == 0)
    }
}
