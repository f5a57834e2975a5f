import IOURing
import TestSupport
import Testing

@testable import QEDChain
@testable import QEDEngine

/// In which order a queue and its loop take turns.
@Suite(.timeLimit(.minutes(2)))
struct EngineDriverTests {
    /// A ring's loop that notes which turns wait.
    private final class NotingLoop: EngineLoop {
        private let loop: RingLoop
        private(set) var waits: [Bool] = []

        init(_ loop: RingLoop) { self.loop = loop }

        func runReady() { loop.runReady() }

        func turn(waits: Bool, inline: (CompletionToken, Int32) -> Void) {
            self.waits.append(waits)
            // The test ends, whatever is waited for.
            loop.turn(waits: false, inline: inline)
        }
    }

    /// Nothing else is under way: the wait would have no end.
    @Test("no turn waits beside a result that nobody has taken")
    func untakenResult() throws {
        try withSmallImage { engine, buffer in
            let loop = NotingLoop(engine.driver.loop)
            let driver = EngineDriver(engine.queue, on: loop)
            // Of what was never written: it needs no I/O.
            driver.queue.start(0, BlockRequest(.read, deviceOffset: 0, byteCount: 4096, buffer: buffer))
            driver.turn(waits: true)
            #expect(loop.waits == [false])
            #expect(driver.queue.nextFinished()?.result == 0)
        }
    }

    @Test("a task that is ready runs before its turn waits")
    func readyTask() throws {
        try withSmallImage { engine, buffer in
            let loop = NotingLoop(engine.driver.loop)
            let driver = EngineDriver(engine.queue, on: loop)
            let write = BlockRequest(.write, deviceOffset: 0, byteCount: 4096, buffer: buffer)
            #expect(engine.perform([write, BlockRequest(.flush)]) == [0, 0])
            // Nothing of it is left to do, which its task finds out: there is no I/O either.
            driver.queue.start(0, BlockRequest(.discard, deviceOffset: 1 << 20, byteCount: 0))
            driver.turn(waits: true)
            #expect(loop.waits == [false])
            #expect(driver.queue.nextFinished()?.result == 0)
        }
    }

    @Test("copies that were planned begin before their turn waits")
    func plannedCopy() throws {
        try withSmallImage(baseBytes: 1 << 20) { engine, buffer in
            // Room, and what lies beneath, are known after the first.
            let first = BlockRequest(.write, deviceOffset: 0, byteCount: 4096, buffer: buffer)
            #expect(engine.perform([first]) == [0])
            engine.queue.start(0, BlockRequest(.write, deviceOffset: 1 << 16, byteCount: 4096, buffer: buffer))
            #expect(engine.queue.jobs.hasPlanned)
            engine.turn(waits: true)
            #expect(!engine.queue.jobs.hasPlanned && engine.queue.statistics.fills > 0)
            while engine.queue.nextFinished() == nil { engine.turn(waits: true) }
        }
    }

    @Test("a queue whose tasks are all parked ends without a wait, and its untaken results with it")
    func end() throws {
        let scratch = try TemporaryDirectory()
        let image = scratch.path("image.qed")
        try require(["qemu-img", "create", "-q", "-f", "qed", image, "1M"])
        let engine = try LocalEngine(path: image)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: 1, count: 4096)
        let write = BlockRequest(.write, deviceOffset: 0, byteCount: 4096, buffer: buffer)
        #expect(engine.perform([write, BlockRequest(.flush)]) == [0, 0])
        while !engine.queue.isQuiet { engine.turn(waits: true) }
        #expect(engine.queue.statistics.slowRequests > 0 && !engine.queue.hasRequests)

        let loop = NotingLoop(engine.driver.loop)
        let driver = EngineDriver(engine.queue, on: loop)
        driver.queue.start(3, BlockRequest(.read, deviceOffset: 1 << 19, byteCount: 4096, buffer: buffer))
        driver.turn(waits: false)
        #expect(driver.queue.hasFinished && !driver.queue.hasRequests)
        driver.stop()
        #expect(driver.queue.isStopped && loop.waits == [false])
        engine.driver.loop.close()
    }
}
