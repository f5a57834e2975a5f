import IOURing
import TestSupport
import Testing

@testable import Ublk

/// What completes together is not submitted together.
@Suite(.timeLimit(.minutes(2)))
struct EarlySubmissionTests {
    @Test func theFirstFewAreDueAndThenTwiceAsMany() {
        var early = EarlySubmission()
        var submitted: [Int] = []
        for number in 1...31 where early.add() { submitted.append(number) }
        #expect(submitted == [4, 12, 28])
        early.beginTurn()
        submitted = []
        for number in 1...31 where early.add() { submitted.append(number) }
        #expect(submitted == [4, 12, 28])
    }

    @Test func fewAreLeftToTheEndOfTheirTurn() {
        var early = EarlySubmission()
        for _ in 0..<100 {
            for _ in 1..<EarlySubmission.first where early.add() { Issue.record("a system call for very little") }
            early.beginTurn()
        }
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
