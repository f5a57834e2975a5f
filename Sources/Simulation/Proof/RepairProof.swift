import QEDEngine
import QEDFormat

/// Images as another program's crash leaves them: NEED_CHECK set, and entries that point past the end of the file. Opening
/// one repairs it; a repair that is cut short by another power cut is done again, and ends in the same state.
public struct RepairProof {
    public struct Report: Sendable {
        public var images = 0
        public var states = 0
    }

    public init() {}

    public func run(seeds: ClosedRange<UInt64>) throws -> Report {
        var report = Report()
        for seed in seeds {
            do { report.states += try play(seed) } catch { throw Violation("repair, seed \(seed): \(error)") }
            report.images += 1
        }
        return report
    }

    private func play(_ seed: UInt64) throws -> Int {
        var random = SeededRandom(seed: seed)
        let clusterSizeBytes = random.pick([4096, 65536] as [UInt64])
        let scene = Scene(
            clusterSizeBytes: clusterSizeBytes, imageSizeBytes: clusterSizeBytes * 16,
            base: random.pick(Scene.Base.allCases))
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        let clusterSectors = Int(clusterSizeBytes / 512)
        let windows = [0..<(8 * clusterSectors)]
        let beginning = try Beginning(.damaged, scene: scene, backing: backing, seed: seed)
        let history = beginning.history

        // Every point of the repair is cut short, and the survivor repaired: by the engine, twice.
        let survivor = SimulatedDisk()
        var states = 0
        let machine = beginning.machine(backing: backing, options: Machine.Options(), seed: seed)
        let disk = machine.disk
        let refusal = try machine.open { completed in
            guard completed else { return }
            let survivors = Survivors(of: disk, inFlight: machine.io.inFlight, tables: [])
            try survivors.forEach(on: survivor, limit: 32, samples: 8, random: &random) {
                states += 1
                try self.repair(survivor, check, backing, history, windows, seed)
            }
        }
        if let refusal { throw Violation("the damaged image is refused: \(refusal)") }
        try machine.takeDown()
        try repair(disk, check, backing, history, windows, seed)
        return states + 1
    }

    private func repair(
        _ disk: SimulatedDisk, _ check: CrashCheck, _ backing: [Machine.BackingFile], _ history: SectorHistory,
        _ windows: [Range<Int>], _ seed: UInt64
    ) throws {
        for time in ["once", "again"] {
            let machine = Machine(disk: disk, backing: backing, options: Machine.Options(), seed: seed)
            try check.open(machine, "the damaged image, opened \(time),")
            try check.readBack(
                machine, windows, "after the repair", allows: { history.maySurvive($0, $1) },
                explain: { history.explain($0) })
            if let error = try machine.close() { throw Violation("closing fails: \(error)") }
            try check.checkClosed(
                disk, windows, allows: { history.maySurvive($0, $1) }, explain: { history.explain($0) })
        }
    }
}
