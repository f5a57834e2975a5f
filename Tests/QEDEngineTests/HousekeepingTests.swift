import Synchronization
import Testing

@testable import QEDEngine

/// What is done when no request comes any more.
@Suite struct HousekeepingTests {
    /// A clock that stood still since the image was opened says nothing about when clusters were allocated.
    @Test("an image is marked as clean five seconds after its last allocation, not sooner, however long it was idle before")
    func markedAsClean() throws {
        try withSmallImage { engine, buffer in
            var now: UInt64 = 1_000_000
            for offset in [0, 65536] as [UInt64] {
                let write = BlockRequest(.write, deviceOffset: offset, byteCount: 4096, buffer: buffer)
                #expect(engine.perform([write]) == [0])
                #expect(engine.perform([BlockRequest(.flush)]) == [0])
                // Ticks come while there is something to wait for only: the first one may be long after an earlier one.
                for seconds in 1...5 {
                    let needsCheck = needsCheckAfterTick(now + UInt64(seconds) * 1000, engine)
                    #expect(needsCheck, "tick \(seconds)")
                }
                let needsCheck = needsCheckAfterTick(now + 6000, engine)
                #expect(!needsCheck)
                let needsTick = engine.queue.needsTick
                #expect(!needsTick)
                now += 1_000_000
            }
        }
    }

    private func needsCheckAfterTick(_ now: UInt64, _ engine: LocalEngine) -> Bool {
        engine.queue.tick(now)
        while engine.queue.housekeeping.isRunning { engine.turn(waits: true) }
        return engine.image.needCheckIsSet.load(ordering: .acquiring)
    }
}
