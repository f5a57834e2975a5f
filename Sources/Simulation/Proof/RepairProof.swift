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
        // An image with some clusters, flushed and closed.
        let first = Machine(disk: try scene.makeDisk(), backing: backing, options: Machine.Options(), seed: seed)
        try check.open(first, "a new image")
        let player = Player(
            machine: first, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: 8, largestSectors: 2 * clusterSectors)
        for cluster in 0..<8 where cluster == 0 || random.chance(1, in: 2) {
            player.start(PlayedRequest(.write, (cluster * clusterSectors)..<(cluster * clusterSectors + 5)))
        }
        try player.drain { _ in }
        player.start(PlayedRequest(.flush))
        try player.drain { _ in }
        if let error = try first.close() { throw Violation("closing fails: \(error)") }
        let disk = first.disk
        damage(disk, &random, scene)
        let history = player.history
        let left = StructureWalk(disk.current, length: disk.length)
        guard left.problem != nil else { throw Violation("the image was not damaged") }

        // Every point of the repair is cut short, and the survivor repaired: by the engine, twice.
        let survivor = SimulatedDisk()
        var states = 0
        let machine = Machine(disk: disk, backing: backing, options: Machine.Options(), seed: seed)
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

    /// Sets NEED_CHECK, and lets entries that were 0 point past the end.
    private func damage(_ disk: SimulatedDisk, _ random: inout SeededRandom, _ scene: Scene) {
        let table = Int(disk.current.word(at: Int(disk.current.word(at: 40))))
        func set(_ offset: Int, _ value: UInt64) {
            let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 8)
            defer { buffer.deallocate() }
            disk.current.read(into: buffer, byteCount: 512, at: offset / 512 * 512)
            buffer.storeBytes(of: value.littleEndian, toByteOffset: offset % 512, as: UInt64.self)
            disk.write(buffer, byteCount: 512, at: UInt64(offset / 512 * 512))
        }
        set(16, disk.current.word(at: 16) | 2)
        for _ in 0...random.below(4) {
            // Behind the clusters that the history uses.
            let entry = 9 + random.below(7)
            set(table + entry * 8, disk.length + UInt64(random.below(4)) * scene.clusterSizeBytes)
        }
        // An entry of the L1 table, too: a table past the end.
        if random.chance(1, in: 2) {
            set(Int(disk.current.word(at: 40)) + 8 * (1 + random.below(8)), disk.length + 64 * scene.clusterSizeBytes)
        }
        disk.makeAllDurable()
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
