import IOURing
import TestSupport
import Testing

@testable import Ublk

/// What completes together is not submitted together.
@Suite(.timeLimit(.minutes(2)))
struct EarlySubmissionTests {
    @Test func theFirstFewAreDueAndThenTwiceAsMany() {
        var early = EarlySubmission()
        var prepared: UInt32 = 0
        var submitted: [UInt32] = []
        for _ in 0..<31 {
            prepared += 1
            guard early.isDue(prepared: prepared) else { continue }
            submitted.append(prepared)
            prepared = 0
        }
        #expect(submitted == [4, 8, 16] && prepared == 3)
        let isDueInThisTurn = early.isDue(prepared: 4)
        early.beginTurn()
        let isDueInTheNext = early.isDue(prepared: 4)
        #expect(!isDueInThisTurn && isDueInTheNext)
    }

    @Test func fewAreLeftToTheEndOfTheTurn() {
        var early = EarlySubmission()
        let isDue = (0..<EarlySubmission.first).map { early.isDue(prepared: $0) }
        #expect(!isDue.contains(true))
    }

    /// The driver has the first answers of a turn before the last ones are prepared.
    @Test func theLoopSubmitsBeforeItsTurnEnds() throws {
        let queue = try PlayedQueue(depth: 32)
        var seen: [Int] = []
        queue.target.whenAsked = { seen.append(queue.ring.commits.count) }
        queue.run([
            { for tag in 0..<32 { queue.ring.deliver(tag, RequestDescriptor(.read, sizeBytes: 512)) } },
            { for tag in 0..<32 { queue.target.finish(tag) } },
            { queue.ring.stop() },
        ])
        #expect(queue.ring.commits.count == 32 && queue.end == .stopped)
        // As many as the driver had when the loop asked for the next: none, then four, and so on.
        #expect(Set(seen) == [0, 4, 12, 28, 32])
    }
}
