import Simulation
import Testing

/// An image gets what lies beneath it while it is served, and then stands alone: `qed-ublk-sim --proof scenarios` plays more.
@Suite struct FlattenTests {
    @Test("whatever a crash leaves has what was acknowledged, with its base or alone", .timeLimit(.minutes(5)))
    func flattening() throws {
        let report = try FlattenProof().run(seeds: CrashTests.isThorough ? 1...40 : 1...10)
        #expect(report.crashes > 0)
        #expect(report.requests > 200)
    }
}
