import Simulation
import Testing

/// The second crash model: the process dies, its mapping log does not.
@Suite struct KillTests {
    @Test(
        "no kill in a short sequence breaks a promise",
        arguments: ExhaustiveSequences.scenes.filter { CrashTests.isThorough || $0.clusterSizeBytes == 4096 })
    func sequences(_ scene: Scene) throws {
        let states = try KillSequences(scene: scene).run(length: 1).states
        #expect(states > 1_000)
    }

    /// 1…10 each found that the first flush after a kill was answered without a sync.
    @Test("no kill in a random history breaks a promise", arguments: 0..<8 as Range<UInt64>)
    func randomHistories(_ block: UInt64) throws {
        var states = 0
        for seed in (block * 2)..<(block * 2 + (CrashTests.isThorough ? 2 : 1)) {
            var history = RandomHistory(seed: seed, model: .kill, requestLimit: CrashTests.isThorough ? 120 : 20)
            do { states += try history.run().states } catch { throw Violation("with kills, seed \(seed): \(error)") }
        }
        #expect(states > 100)
    }

    @Test("a history with kills repeats with its seed")
    func determinism() throws {
        var reports: [RandomHistory.Report] = []
        for _ in 0..<2 {
            var history = RandomHistory(seed: 3, model: .kill, requestLimit: 40)
            reports.append(try history.run())
        }
        #expect(reports[0] == reports[1])
    }
}
