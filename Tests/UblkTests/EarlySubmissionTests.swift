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

    /// Requests that arrive together begin before the last of them is looked at. Answers wait for the end of the turn.
    @Test func theLoopSubmitsBeforeItsTurnEnds() throws {
        let queue = try PlayedQueue(depth: 32)
        var submissions: [Int] = []
        queue.target.whenStarted = { _ in submissions.append(queue.ring.earlySubmissions) }
        queue.run([
            { for tag in 0..<32 { queue.ring.deliver(tag, RequestDescriptor(.read, sizeBytes: 512)) } },
            { for tag in 0..<32 { queue.target.finish(tag) } },
            { queue.ring.stop() },
        ])
        #expect(queue.ring.commits.count == 32 && queue.end == .stopped)
        let expected = Array(repeating: 0, count: 4) + Array(repeating: 1, count: 8) + Array(repeating: 2, count: 16)
        #expect(submissions == expected + Array(repeating: 3, count: 4))
        #expect(queue.ring.earlySubmissions == 3)
    }
}
