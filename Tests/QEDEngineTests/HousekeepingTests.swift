import QEDChain
import Synchronization
import TestSupport
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
                expectMarkedAsCleanAfterFiveSeconds(from: now, engine, "offset \(offset)")
                let needsTick = engine.queue.needsTick
                #expect(!needsTick)
                now += 1_000_000
            }
        }
    }

    /// A zero cluster over backing data takes no space, only an entry.
    @Test("zeroing over backing data counts as a change of the image")
    func zeroingIsAChange() throws {
        try withSmallImage(baseBytes: 1 << 20) { engine, _ in
            var now: UInt64 = 1_000_000
            for cluster in 0..<3 as Range<UInt64> {
                let zeroes = BlockRequest(.writeZeroes, deviceOffset: cluster << 16, byteCount: 65536)
                #expect(engine.perform([zeroes, BlockRequest(.flush)]) == [0, 0])
                #expect(engine.perform([BlockRequest(.flush)]) == [0])
                expectMarkedAsCleanAfterFiveSeconds(from: now, engine, "cluster \(cluster)")
                now += 1_000_000
            }
        }
    }

    /// The image has been changed just before.
    private func expectMarkedAsCleanAfterFiveSeconds(from now: UInt64, _ engine: LocalEngine, _ what: String) {
        for seconds in 1...6 as ClosedRange<UInt64> {
            let needsCheck = needsCheckAfterTick(now + seconds * 1000, engine)
            #expect(needsCheck == (seconds <= 5), "\(what), tick \(seconds)")
        }
    }

    private func needsCheckAfterTick(_ now: UInt64, _ engine: LocalEngine) -> Bool {
        engine.queue.tick(now)
        while engine.queue.housekeeper.isRunning { engine.turn(waits: true) }
        return engine.image.needCheckHint.load(ordering: .acquiring) != .clear
    }
}
