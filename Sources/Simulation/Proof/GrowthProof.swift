import BlockStorage
import QEDEngine
import QEDFormat

/// A disk that grows while it is served, over bases that end before it, within it, and behind it. At each step the power is cut
/// or the process killed: what was flushed is there, the disk has its old size or its new one, and what it has gained reads as
/// zeros; never what the base, or the image, has there.
public struct GrowthProof {
    public struct Report: Sendable {
        public var disks = 0
        public var states = 0
    }

    public init() {}

    public func run(seeds: ClosedRange<UInt64>) throws -> Report {
        var report = Report()
        for seed in seeds {
            do { report.states += try GrowingDisk(seed: seed).play() } catch { throw Violation("growth, seed \(seed): \(error)") }
            report.disks += 1
        }
        return report
    }
}

private final class GrowingDisk {
    private let seed: UInt64
    private var random: SeededRandom
    /// As it is to become, and as it is.
    private let scene: Scene
    private let oldScene: Scene
    private let check: CrashCheck
    private let backing: [Machine.BackingFile]
    private var content: DeviceContent
    private let logCapacity: Int
    private var states = 0
    private let survivor = SimulatedDisk()

    private var oldSectors: Int { Int(oldScene.imageSizeBytes / 512) }
    private var newSectors: Int { Int(scene.imageSizeBytes / 512) }

    init(seed: UInt64) throws {
        self.seed = seed
        var random = SeededRandom(seed: seed)
        let clusterSizeBytes = random.pick([4096, 4096, 16384] as [UInt64])
        // Of tables of one cluster each maps 2 MiB, or 32.
        scene = Scene(
            clusterSizeBytes: clusterSizeBytes, tableSizeClusters: 1,
            imageSizeBytes: clusterSizeBytes * UInt64(random.pick([40, 700, 1600])), base: random.pick(Scene.Base.allCases))
        let clusters = Int(scene.imageSizeBytes / clusterSizeBytes)
        var old = scene
        old.imageSizeBytes = UInt64(8 + random.below(clusters - 16)) * clusterSizeBytes + UInt64(random.pick([0, 0, 512, 3584]))
        oldScene = old
        backing = try scene.makeBacking()
        check = CrashCheck(scene: scene, backing: backing, seed: seed)
        let last = Int(old.imageSizeBytes / 512)
        let ranges = [0..<64, (last - 64)..<last]
        let larger = scene
        content = DeviceContent(ranges, ranges.joined().map { larger.initialValue($0) })
        logCapacity = random.pick([16, 256])
        self.random = random
    }

    func play() throws -> Int {
        let session = random.chance(1, in: 2) ? SimulatedSession(capacity: logCapacity) : nil
        var options = Machine.Options()
        options.queueCount = 1 + random.below(2)
        let machine = Machine(disk: try oldScene.makeDisk(), backing: backing, options: options, seed: seed, session: session)
        try check.open(machine, "a new image")
        try check.write(machine, &content, "before it grows")
        try check.flush(machine, content, "before it grows")
        session?.catchUp()
        let error = try machine.grow(to: scene.imageSizeBytes) { _ in
            guard self.random.chance(1, in: 2) else { return }
            try self.cutPower(machine)
            try self.kill(machine)
            session?.catchUp()
        }
        if let error { throw Violation("it does not grow: \(error)") }
        try expect(machine, "once it has grown", isGrown: true)
        try cutPower(machine)
        if let error = try machine.close() { throw Violation("closing fails: \(error)") }
        try expectSound(machine.disk, "the larger disk, closed,", isGrown: true)
        return states
    }

    private func cutPower(_ machine: Machine) throws {
        let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
        if let problem = walk.problem { throw Violation("the live image is damaged: \(problem)") }
        let survivors = Survivors(of: machine.disk, inFlight: machine.io.inFlight, tables: walk.tables)
        var choices = SeededRandom(seed: random.next())
        try survivors.forEach(on: survivor, limit: 8, samples: 4, random: &choices) {
            try expectSound(survivor, "after a power cut", isGrown: nil)
        }
    }

    private func kill(_ machine: Machine) throws {
        guard let log = machine.session else { return }
        log.catchUp()
        Leftovers(of: machine.disk, inFlight: machine.io.inFlight).makeSample(on: survivor, &random)
        let session = SimulatedSession(capacity: logCapacity)
        session.inherit(from: log)
        try expectSound(survivor, "after a kill", isGrown: nil, session)
    }

    /// - Parameter isGrown: nil: that is for the header to say.
    private func expectSound(
        _ disk: SimulatedDisk, _ when: String, isGrown: Bool?, _ session: SimulatedSession? = nil
    ) throws {
        states += 1
        let machine = Machine(
            disk: disk, backing: backing, options: Machine.Options(), seed: random.next(), session: session)
        try check.open(machine, "the image \(when)")
        try expect(machine, when, isGrown: isGrown)
        if let error = try machine.close() { throw Violation("\(when) closing fails: \(error)") }
        if let problem = StructureWalk(disk.current, length: disk.length).problem { throw Violation("\(when): \(problem)") }
    }

    private func expect(_ machine: Machine, _ when: String, isGrown: Bool?) throws {
        guard let sizeBytes = machine.image?.sizeBytes else { throw Violation("no image") }
        let hasGrown = sizeBytes == scene.imageSizeBytes
        guard hasGrown || sizeBytes == oldScene.imageSizeBytes, isGrown ?? hasGrown == hasGrown else {
            throw Violation("\(when) the disk has \(sizeBytes) bytes")
        }
        try check.readBack(machine, content, when)
        guard hasGrown else { return }
        let behind = [oldSectors..<min(oldSectors + 256, newSectors), max(oldSectors, newSectors - 64)..<newSectors]
        try check.readBack(machine, behind, when, allows: { $1 == 0 }, explain: { _ in "it is behind the old end" })
    }
}
