import Simulation
import Testing

/// What is kept of a base has a bound: `qed-ublk-sim --proof scenarios` plays more.
@Suite struct KeptLimitTests {
    @Test("whatever a crash leaves of what is kept, or let go, reads as the base", .timeLimit(.minutes(5)))
    func bounded() throws {
        let report = try KeptLimitProof().run(seeds: CrashTests.isThorough ? 1...40 : 1...3)
        #expect(report.crashes > 0)
        #expect(report.forgotten > 2)
        #expect(report.reads > 200)
    }

    @Test("an image that has something of its own is found to lose it", .timeLimit(.minutes(5)))
    func written() {
        #expect(throws: Violation.self) { try KeptLimitProof(writes: true).run(seeds: 1...12) }
    }
}
