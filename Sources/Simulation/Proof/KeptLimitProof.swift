import BlockStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Images that keep what is read of a raw base, and let go of what they kept before: an empty overlay comes over what was kept,
/// and when it is nearly full itself that is taken away beneath it. With power cuts and kills at any step: whatever is left
/// reads as the base, and is sound.
public struct KeptLimitProof {
    public struct Report: Sendable {
        public var states = 0
        public var reads = 0
        public var crashes = 0
        /// How often something was let go.
        public var forgotten = 0
    }

    /// Something is written to the images all the same, which they are to be found without.
    private let writes: Bool

    public init(writes: Bool = false) { self.writes = writes }

    public func run(seeds: ClosedRange<UInt64>, readsEach: Int = 150) throws -> Report {
        var report = Report()
        for seed in seeds {
            do {
                var history = try KeptLimitHistory(seed: seed, readLimit: readsEach, writes: writes)
                try history.play(&report)
            } catch {
                throw Violation("what is kept and let go, seed \(seed): \(error)")
            }
        }
        return report
    }
}

private struct KeptLimitHistory {
    private var random: SeededRandom
    private let readLimit: Int
    private let scene: Scene
    private var options = Machine.Options()
    private let backing: [Machine.BackingFile]
    private let judges: CrashJudges
    private var check: CrashCheck { judges.check }
    private var kills: KillCheck? { judges.kills }
    private var windows: [Range<Int>] { judges.windows }
    private let writes: Bool

    init(seed: UInt64, readLimit: Int, writes: Bool) throws {
        var random = SeededRandom(seed: seed ^ 0x4e97)
        let clusterSizeBytes = random.pick([4096, 4096, 16384] as [UInt64])
        scene = Scene(
            clusterSizeBytes: clusterSizeBytes, imageSizeBytes: clusterSizeBytes * 48, base: random.pick([.raw, .short]))
        let windows = [0..<Int(scene.imageSizeBytes / 512)]
        options.keepsReads = true
        // Header, two tables, what must be left when it counts as full, and some clusters.
        options.keptLimitBytes = clusterSizeBytes * random.pick([20, 28])
        options.queueCount = 1 + random.below(2)
        options.depth = random.pick([1, 4, 16])
        options.slowPercent = random.pick([0, 10, 40])
        options.smallestChunkBytes = clusterSizeBytes * random.pick([1, 4])
        backing = try scene.makeBacking()
        judges = CrashJudges(of: scene, backing, windows, seed: seed, &random)
        (self.random, self.readLimit, self.writes) = (random, readLimit, writes)
    }

    mutating func play(_ report: inout KeptLimitProof.Report) throws {
        let scene = self.scene
        let history = SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) }
        var machine = self.machine(on: try scene.makeDisk(), [], kills?.makeSession())
        try check.open(machine, "a new image")
        machine.session?.catchUp()
        let player = Player(machine: machine, history: history, depth: options.depth, largestSectors: 128)
        if writes {
            player.start(PlayedRequest(.write, 0..<8, fua: true))
            try judges.drain(player)
        }
        for life in 0..<3 {
            let isCrash = life < 2 && random.chance(2, in: 3)
            try read(player, untilStep: isCrash ? random.below(random.pick([300, 2000])) : .max, &report)
            if isCrash {
                machine = try crash(player)
                report.crashes += 1
                player.goOn(with: machine)
                continue
            }
            try judges.drain(player)
            try finishSwitch(player)
            if machine.forgetting == .named { try whileQuiet(player) { try machine.finishForgetting() } }
            let windows = self.windows
            let error = try machine.close { _ in try kills?.killBetweenStores(machine, player.history, windows) }
            if let error { throw Violation("closing fails: \(error)") }
            let last = player.history
            try check.checkClosed(
                machine.disk, over: try machine.sealedNow(), windows,
                allows: { last.mayRead($0, $1, start: last.now) }, explain: { last.explain($0) })
            break
        }
        report.reads += player.finishedCount
        report.states += judges.states
    }

    private mutating func machine(
        on disk: SimulatedDisk, _ sealed: [FrozenLayer], _ session: SimulatedSession?
    ) -> Machine {
        Machine(disk: disk, sealed: sealed, backing: backing, options: options, seed: random.next(), session: session)
    }

    // MARK: - Reads

    private mutating func read(_ player: Player, untilStep crashStep: Int, _ report: inout KeptLimitProof.Report) throws {
        let machine = player.machine
        var started = 0
        for step in 0..<Machine.longestRun {
            if step == crashStep || started == readLimit && player.pendingCount == 0 { return }
            if player.hasFreeSlot, started < readLimit, random.chance(1, in: 8) || !machine.hasReady {
                let start = random.below(windows[0].count - 128)
                player.start(PlayedRequest(.read, start..<(start + 1 + random.below(128))))
                started += 1
            }
            if random.chance(1, in: 300) { machine.tick(milliseconds: random.pick([1_000, 6_000])) }
            machine.step()
            try judges.killBetweenStores(player)
            try player.poll()
            machine.endOfBatch()
            try judges.killBetweenStores(player)
            if step % 16 == 0 || machine.forgetting != nil && step % 3 == 0 { try judges.look(player, samples: 3) }
            if step % 8 == 0 { try makeRoom(player, &report) }
            let length = machine.disk.length
            if let limit = options.keptLimitBytes, length > limit + 24 * scene.clusterSizeBytes {
                throw Violation("an image of \(limit) bytes at most has \(length)")
            }
        }
        throw Machine.Hang(reason: "reads go on for ever")
    }

    private mutating func makeRoom(_ player: Player, _ report: inout KeptLimitProof.Report) throws {
        let machine = player.machine
        switch machine.lower?.seal {
        case .open: return machine.beginSeal()
        case .underWay: return
        case .done: return try finishSwitch(player)
        case nil: break
        }
        switch machine.forgetting {
        case .underWay: return
        case .failed: throw Violation("a header cannot be changed, on a disk that does not fail")
        case .named:
            try whileQuiet(player) { try machine.finishForgetting() }
            report.forgotten += 1
            return
        case nil: break
        }
        guard machine.image?.wantsRoomForReads ?? false else { return }
        if machine.sealed.count == 1 {
            _ = try machine.beginForgetting()
            return
        }
        let log = kills?.makeSession()
        let (kills, windows) = (self.kills, self.windows)
        let next = try machine.openOverlay(on: try scene.makeOverlay(), log) { _ in
            log?.catchUp()
            try kills?.killBetweenStores(machine, player.history, windows)
        }
        log?.catchUp()
        try whileQuiet(player) { machine.switchTop(to: next, player.historyWithoutKept) }
    }

    private func finishSwitch(_ player: Player) throws {
        let machine = player.machine
        guard machine.lower != nil else { return }
        for _ in 0..<Machine.longestRun where machine.lower?.seal != .done {
            machine.beginSeal()
            try stepOnce(player)
        }
        try whileQuiet(player) { _ = machine.adopt() }
    }

    private func whileQuiet(_ player: Player, _ body: () throws -> Void) throws {
        let machine = player.machine
        for queue in machine.queues { queue.hold() }
        for _ in 0..<Machine.longestRun where !machine.isQuiet { try stepOnce(player) }
        try body()
        for queue in machine.queues { queue.resume() }
        try judges.killBetweenStores(player)
    }

    private func stepOnce(_ player: Player) throws {
        player.machine.step()
        try judges.killBetweenStores(player)
        try player.poll()
        player.machine.endOfBatch()
    }

    // MARK: - Crashes

    /// The process is killed, or the power cut, for good.
    /// - Returns: the machine that goes on with what is left.
    private mutating func crash(_ player: Player) throws -> Machine {
        let machine = player.machine
        if let kills, kills.mayKill(machine), random.chance(1, in: 2) {
            let left = try kills.leftover(of: machine)
            var sealed = left.sealed
            try machine.takeDown()
            if let lower = left.lower { sealed.insert(try kills.seal(lower, over: sealed), at: 0) }
            player.history.processKilled()
            let next = self.machine(on: left.image.disk, sealed, left.image.session)
            try check.open(next, "what a kill has left")
            return next
        }
        let left = try check.survivor(of: machine)
        let log = kills?.makeSession()
        if let old = machine.session { log?.survivePowerCut(of: old) }
        try machine.takeDown()
        let next = self.machine(on: left.disk, left.sealed, log)
        if let refusal = try next.open() { throw Violation("what a power cut has left is refused: \(refusal)") }
        try kills?.killBetweenStores(next, player.history, windows, afterFailedSync: true)
        return next
    }
}
