#if QED_SABOTAGE
import QEDEngine

/// The proof of the proof: with each of its planted faults the engine must be caught.
public enum SabotageProof {
    public struct Finding: Sendable {
        public var proof: String
        public var violation: String
        public var duration: Duration
    }

    /// Looks for a violation with one fault planted; nil when none is found in histories of `seedCount` seeds, and in everything
    /// else once. Counted in seeds: a busy machine finds what a quick one does.
    ///
    /// Not to be run beside anything else that uses the engine.
    public static func find(_ sabotage: Sabotage, seedCount: UInt64) -> Finding? {
        Sabotage.active = sabotage
        defer { Sabotage.active = nil }
        let start = ContinuousClock.now
        func finding(_ proof: String, _ body: () throws -> Void) -> Finding? {
            do {
                try body()
                return nil
            } catch {
                return Finding(proof: proof, violation: "\(error)", duration: ContinuousClock.now - start)
            }
        }
        for seed in 1...seedCount {
            let found =
                finding("random history, seed \(seed)") {
                    var history = RandomHistory(seed: seed)
                    _ = try history.run()
                }
                ?? finding("random history with kills, seed \(seed)") {
                    var history = RandomHistory(seed: seed, model: .kill)
                    _ = try history.run()
                }
            if let found { return found }
            // What chance seldom makes.
            if seed == 8 {
                let staged =
                    finding("a commit that fails with the log full") {
                        try Scenarios.commitThatFailsWithTheLogFull(seed: seed)
                    }
                    ?? finding("pages that cannot be written") {
                        for seed in 1...8 as ClosedRange<UInt64> {
                            try Scenarios.pagesThatCannotBeWritten(seed: seed, base: .none)
                        }
                    }
                    ?? finding("disks that grow") { _ = try GrowthProof().run(seeds: 1...40) }
                    ?? finding("images that are flattened") { _ = try FlattenProof().run(seeds: 1...40) }
                    ?? finding("requests beside a trim") { _ = try Scenarios.requestsBesideATrim(seed: 1, base: .raw) }
                    ?? finding("requests beside a read that is kept") {
                        for seed in 1...8 as ClosedRange<UInt64> { _ = try Scenarios.requestsBesideAKeptRead(seed: seed) }
                    }
                if let staged { return staged }
            }
            // Chance has had its turn: now everything else, once.
            guard seed == 52 else { continue }
            for scene in ExhaustiveSequences.scenes where scene.clusterSizeBytes == 4096 {
                let found =
                    finding("faults, \(scene)") { _ = try FaultLoop(scene: scene, seed: 1).run() }
                    ?? finding("sequences, \(scene)") { _ = try ExhaustiveSequences(scene: scene).run(length: 2) }
                    ?? finding("sequences with kills, \(scene)") { _ = try KillSequences(scene: scene).run(length: 2) }
                if let found { return found }
            }
        }
        return nil
    }
}
#endif
