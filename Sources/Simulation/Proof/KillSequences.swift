import QEDEngine

/// Every short sequence of steps on a new image, with the process killed at every moment of the last step, and of the
/// close that follows.
public struct KillSequences {
    private let sequences: ExhaustiveSequences
    private var scene: Scene { sequences.scene }

    public init(scene: Scene) { sequences = ExhaustiveSequences(scene: scene) }

    /// Plays all sequences of `length` steps, or one in so many, from one that the seed decides on.
    /// - Parameter samples: of what operations in flight have left, besides the combinations.
    public func run(
        length: Int, seed: UInt64 = 1, oneIn interval: Int = 1, samples: Int = 1
    ) throws -> ExhaustiveSequences.Report {
        var report = ExhaustiveSequences.Report()
        let backing = try scene.makeBacking()
        let powerCut = CrashCheck(scene: scene, backing: backing, seed: seed)
        let check = KillCheck(powerCut: powerCut, logCapacity: 64, seed: seed)
        try sequences.forEach(length: length) { indexes, number in
            if (UInt64(number) &+ seed) % UInt64(interval) != 0 { return }
            try play(indexes, backing, check, seed: seed &+ UInt64(number), samples: samples)
            report.sequences += 1
        }
        report.states = check.states + powerCut.states
        return report
    }

    private func play(
        _ indexes: [Int], _ backing: [Machine.BackingFile], _ check: KillCheck, seed: UInt64, samples: Int
    ) throws {
        let scene = self.scene
        let windows = sequences.windows
        let machine = Machine(
            disk: try scene.makeDisk(), backing: backing, options: Machine.Options(), seed: seed,
            session: check.makeSession())
        if let refusal = try machine.open() { throw Violation("a new image is refused: \(refusal)") }
        machine.session?.catchUp()
        let player = Player(
            machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: 8, largestSectors: 3 * Int(scene.clusterSizeBytes / 512))
        for (position, index) in indexes.enumerated() {
            // Shorter sequences have looked at what comes before the last step.
            let isLast = position == indexes.count - 1
            func kill(betweenStores: Bool) throws {
                guard isLast else {
                    machine.session?.catchUp()
                    return
                }
                try check.killBetweenStores(machine, player.history, windows)
                if !betweenStores { try check.kill(machine, player.history, windows, samples: samples) }
            }
            for request in sequences.steps[index] {
                player.start(request)
                try kill(betweenStores: false)
            }
            try player.drain {
                try kill(betweenStores: true)
            } afterStep: { _ in
                try kill(betweenStores: false)
            }
        }
        try check.kill(machine, player.history, windows, samples: samples)
        let error = try machine.close { _ in
            try check.killBetweenStores(machine, player.history, windows)
            try check.kill(machine, player.history, windows, samples: samples)
        }
        if let error { throw Violation("closing fails: \(error)") }
    }
}
