import BlockStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Images that get what lies beneath them while they are served, over bases of every kind and chains of snapshots, with requests,
/// failing disks, power cuts and kills at any step of it. What was acknowledged is there in every state, whether the image still
/// names its base or not; and at the end the image alone has it.
public struct FlattenProof {
    public struct Report: Sendable {
        public var images = 0
        public var states = 0
        public var requests = 0
        /// Those that began again, on what a crash had left.
        public var crashes = 0
    }

    public init() {}

    public func run(seeds: ClosedRange<UInt64>, requestsEach: Int = 60) throws -> Report {
        var report = Report()
        for seed in seeds {
            do {
                var image = try FlattenedImage(seed: seed, requestLimit: requestsEach)
                let played = try image.play()
                report.states += played.states
                report.requests += played.requests
                report.crashes += played.crashes
            } catch {
                throw Violation("flattening, seed \(seed): \(error)")
            }
            report.images += 1
        }
        return report
    }
}

private struct FlattenedImage {
    private let seed: UInt64
    private let requestLimit: Int
    private var random: SeededRandom
    /// The base's, which may be longer than the image.
    private let scene: Scene
    private let imageScene: Scene
    private var options = Machine.Options()
    private let backing: [Machine.BackingFile]
    private let judges: CrashJudges
    private var check: CrashCheck { judges.check }
    private var kills: KillCheck? { judges.kills }
    private var windows: [Range<Int>] { judges.windows }
    private let hasFaults: Bool
    private let isWide: Bool
    private static let sectorInHole = 2048
    private var crashes = 0

    init(seed: UInt64, requestLimit: Int) throws {
        self.seed = seed
        self.requestLimit = requestLimit
        var random = SeededRandom(seed: seed ^ 0xf1a7)
        // The largest do not fit a buffer.
        let clusterSizeBytes = random.pick([4096, 4096, 16384, 65536, 524_288] as [UInt64])
        isWide = clusterSizeBytes <= 16384 && random.chance(1, in: 3)
        scene = Scene(
            clusterSizeBytes: clusterSizeBytes, tableSizeClusters: random.pick([1, 2]),
            imageSizeBytes: isWide ? 20 << 20 : clusterSizeBytes * UInt64(clusterSizeBytes > 65536 ? 6 : random.pick([12, 24])),
            base: random.pick([.raw, .short, .qed]))
        var imageScene = scene
        options.alignmentBytes = random.pick([1, 512, 4096])
        let block = UInt64(max(options.alignmentBytes, 512))
        if random.chance(1, in: 3) {
            imageScene.imageSizeBytes -= clusterSizeBytes * UInt64(random.below(3)) + clusterSizeBytes / 4
        }
        imageScene.imageSizeBytes = imageScene.imageSizeBytes / block * block
        self.imageScene = imageScene
        let sectors = Int(imageScene.imageSizeBytes / 512)
        let baseEnd = min(Int(scene.baseBytes / 512) / 8 * 8, sectors)
        let windows =
            isWide
            ? [0..<64, 4096..<4224, (baseEnd - 96)..<max(baseEnd, min(baseEnd + 32, sectors - 128)), (sectors - 64)..<sectors]
            : [0..<sectors]
        options.queueCount = 1 + random.below(2)
        options.depth = random.pick([1, 4, 16])
        options.slowPercent = random.pick([0, 10, 40])
        if random.chance(1, in: 3) { options.smallestChunkBytes = clusterSizeBytes }
        hasFaults = random.chance(1, in: 3)
        backing = try scene.makeBacking()
        judges = CrashJudges(of: scene, backing, windows, seed: seed, &random)
        self.random = random
    }

    mutating func play() throws -> (states: Int, requests: Int, crashes: Int) {
        let sealed = random.chance(1, in: 2) ? try makeSnapshots() : []
        let (scene, image) = (self.scene, imageScene)
        let history = SectorHistory(sizeBytes: image.imageSizeBytes) { scene.value($0, through: sealed) }
        let disk = sealed.isEmpty ? try image.makeDisk() : try image.makeOverlay()
        var machine = self.machine(on: disk, sealed, kills?.makeSession())
        try check.open(machine, "a new image")
        machine.session?.catchUp()
        let player = Player(machine: machine, history: history, depth: options.depth, largestSectors: 64)
        // What the image has before it begins.
        for _ in 0..<random.below(12) {
            player.start(nextRequest())
            try judges.drain(player)
        }
        let isCut = try flatten(player)
        if machine.io.failedSyncs > 0 {
            try machine.takeDown()
        } else if isCut {
            machine = try crash(player)
            try flattenAlone(machine, player)
        } else {
            try judges.drain(player)
            try close(machine, player)
        }
        return (judges.states, player.finishedCount, crashes)
    }

    private mutating func machine(
        on disk: SimulatedDisk, _ sealed: [FrozenLayer], _ session: SimulatedSession?
    ) -> Machine {
        Machine(disk: disk, sealed: sealed, backing: backing, options: options, seed: random.next(), session: session)
    }

    /// Files between the image and the base, the newest first, each with something of its own.
    private mutating func makeSnapshots() throws -> [FrozenLayer] {
        var sealed: [FrozenLayer] = []
        for number in 0...random.below(2) {
            let machine = self.machine(on: number == 0 ? try imageScene.makeDisk() : try imageScene.makeOverlay(), sealed, nil)
            try check.open(machine, "a snapshot")
            let (scene, layers) = (self.scene, sealed)
            let player = Player(
                machine: machine,
                history: SectorHistory(sizeBytes: imageScene.imageSizeBytes) { scene.value($0, through: layers) },
                depth: options.depth, largestSectors: 64, firstNumber: 1_000_000 * (number + 1))
            for _ in 0..<(2 + random.below(8)) {
                player.start(nextRequest())
                try judges.drain(player)
            }
            if let error = try machine.close() { throw Violation("closing a snapshot fails: \(error)") }
            sealed.insert(FrozenLayer(machine.disk), at: 0)
        }
        return sealed
    }

    /// - Parameter place: of the disk where it may be.
    private mutating func nextRequest(in place: Range<Int>? = nil) -> PlayedRequest {
        let window = place ?? random.pick(windows)
        let blockSectors = max(options.alignmentBytes / 512, 1)
        let blocks = window.count / blockSectors
        var first = random.below(blocks)
        var count = min(1 + random.below(64 / blockSectors), blocks - first)
        let clusterBlocks = Int(scene.clusterSizeBytes) / 512 / blockSectors
        if clusterBlocks * blockSectors <= 64, blocks >= clusterBlocks, random.chance(1, in: 3) {
            first = first / clusterBlocks * clusterBlocks
            count = min(clusterBlocks, blocks - first)
        }
        let start = window.lowerBound + first * blockSectors
        let range = start..<(start + count * blockSectors)
        switch random.below(12) {
        case 0: return PlayedRequest(.flush)
        case 1: return PlayedRequest(.discard, range)
        case 2, 3: return PlayedRequest(.writeZeroes, range, keepsSpace: random.chance(1, in: 2))
        case 4, 5, 6: return PlayedRequest(.read, range)
        case 7: return PlayedRequest(.write, range, fua: true)
        default: return PlayedRequest(.write, range)
        }
    }

    // MARK: - Under requests

    /// - Returns: true where it is to be cut short at this moment.
    private mutating func flatten(_ player: Player) throws -> Bool {
        let machine = player.machine
        let crashStep = random.chance(1, in: 3) ? random.below(random.pick([100, 300, 800])) : Int.max
        let lookInterval = random.pick([8, 24])
        let startPercent = random.pick([2, 10, 40])
        var started = 0
        machine.flattening = SimulatedFlattening()
        for step in 0..<Machine.longestRun {
            guard let phase = machine.flattening?.phase else { return false }
            if machine.io.failedSyncs > 0 { return false }
            if step == crashStep { return true }
            if hasFaults { plantFault(player, step) }
            switch phase {
            case .copying, .copied: if random.chance(1, in: 4) || !machine.hasReady { machine.goOnFlattening() }
            case .failed:
                guard hasFaults else { throw Violation("it fails, on a disk that does not") }
                machine.fault = nil
                machine.flattening?.phase = .copying(from: 0)
            case .forgotten:
                try finish(player)
                try judges.look(player, samples: 4)
                continue
            case .underWay, .forgetting: break
            }
            if player.hasFreeSlot, started < requestLimit, random.below(100) < startPercent {
                player.start(nextRequest(in: random.chance(1, in: 2) ? placeOfCopy(machine) : nil))
                started += 1
                try judges.killBetweenStores(player)
            }
            if random.chance(1, in: 200) { machine.tick(milliseconds: random.pick([1_000, 6_000])) }
            machine.step()
            try judges.killBetweenStores(player)
            try player.poll()
            machine.endOfBatch()
            try judges.killBetweenStores(player)
            // The last moments are those in which something could be wrong.
            if phase == .forgetting ? random.chance(1, in: 2) : step % lookInterval == 0 { try judges.look(player, samples: 2) }
        }
        throw Machine.Hang(reason: "an image is flattened for ever")
    }

    /// Where something is read from the raw file at the bottom, as a copy does it: what comes there now meets it.
    private func placeOfCopy(_ machine: Machine) -> Range<Int>? {
        guard let bottom = machine.backing.last, bottom.isRaw else { return nil }
        for operation in machine.io.inFlight where operation.disk === bottom.disk {
            guard case .storage(.read(_, let byteCount, let fileOffset)) = operation.kind else { continue }
            let sectors = Int(fileOffset / 512)..<Int((fileOffset + UInt64(byteCount)) / 512)
            // Whole blocks of a window.
            for window in windows where sectors.count >= 8 && window.contains(sectors.lowerBound) {
                let start = sectors.lowerBound / 8 * 8
                let end = min(start + sectors.count / 8 * 8, window.upperBound / 8 * 8)
                if start >= window.lowerBound, start < end { return start..<end }
            }
        }
        return nil
    }

    /// All queues are held, and the chain is another.
    private mutating func finish(_ player: Player) throws {
        let machine = player.machine
        for queue in machine.queues { queue.hold() }
        for _ in 0..<Machine.longestRun where !machine.isQuiet {
            guard machine.step() != nil || machine.isQuiet else { throw Machine.Hang(reason: "queues that are never quiet") }
            try judges.killBetweenStores(player)
            try player.poll()
        }
        try machine.finishFlattening()
        for queue in machine.queues { queue.resume() }
        try judges.killBetweenStores(player)
    }

    private mutating func plantFault(_ player: Player, _ step: Int) {
        guard step % 50 == 0 else { return }
        let machine = player.machine
        machine.fault = nil
        guard random.chance(1, in: 3) else { return }
        player.allowedErrors = [Errno.ioError.rawValue, Errno.noSpace.rawValue]
        machine.fault = Fault(
            random.pick([.error(.ioError), .error(.noSpace), .short] as [Fault.Effect]),
            operation: machine.completedOperations + random.below(8), isPersistent: random.chance(1, in: 4))
    }

    private func close(_ machine: Machine, _ player: Player) throws {
        machine.fault = nil
        let (last, windows) = (player.history, self.windows)
        let error = try machine.close { _ in try kills?.killBetweenStores(machine, last, windows) }
        if let error { throw Violation("closing fails: \(error)") }
        guard Machine.backingName(of: machine.disk).isEmpty else { throw Violation("the closed image names a backing file") }
        // Nobody has written there, and the raw base has a hole.
        let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
        if isWide, scene.base != .qed, walk.place(ofSector: Self.sectorInHole) != .backing {
            throw Violation("a hole was copied")
        }
        try check.checkClosed(
            machine.disk, windows, allows: { last.mayRead($0, $1, start: last.now) }, explain: { last.explain($0) })
    }

    // MARK: - After a crash

    /// The process is killed, or the power cut, for good.
    /// - Returns: the machine that goes on with what is left.
    private mutating func crash(_ player: Player) throws -> Machine {
        crashes += 1
        let machine = player.machine
        if let kills, kills.mayKill(machine), random.chance(1, in: 2) {
            let left = try kills.leftover(of: machine)
            try machine.takeDown()
            player.history.processKilled()
            let next = self.machine(on: left.image.disk, left.sealed, left.image.session)
            try check.open(next, "what a kill has left")
            return next
        }
        let left = try check.survivor(of: machine)
        let log = kills?.makeSession()
        if let old = machine.session { log?.survivePowerCut(of: old) }
        try machine.takeDown()
        let next = self.machine(on: left.disk, left.sealed, log)
        // A log that has survived a power cut is not believed, and no reason to say so.
        if let refusal = try next.open() { throw Violation("what a power cut has left is refused: \(refusal)") }
        return next
    }

    /// What is read first is the truth. Then it is flattened again, while nobody asks for anything.
    private mutating func flattenAlone(_ machine: Machine, _ player: Player) throws {
        let before = player.history
        var values: [UInt64] = []
        try check.readBack(machine, windows, "after a crash") { sector, value in
            values.append(value)
            return before.maySurvive(sector, value)
        } explain: {
            before.explain($0)
        }
        var content = DeviceContent(windows, values)
        if options.alignmentBytes <= 512 { try check.write(machine, &content, "after a crash") }
        if !machine.backing.isEmpty {
            machine.flattening = SimulatedFlattening()
            for _ in 0..<Machine.longestRun where machine.flattening?.phase != .forgotten {
                machine.goOnFlattening()
                guard machine.step() != nil || machine.flattening?.phase == .forgotten else {
                    throw Machine.Hang(reason: "a copy waits for nothing")
                }
                if machine.flattening?.phase == .failed { throw Violation("it fails, on a disk that does not") }
            }
            for queue in machine.queues { queue.hold() }
            try machine.settle()
            try machine.finishFlattening()
            for queue in machine.queues { queue.resume() }
        }
        try check.readBack(machine, content, "once it stands alone")
        try check.close(machine, content, "once it stands alone")
        guard Machine.backingName(of: machine.disk).isEmpty else { throw Violation("the closed image names a backing file") }
    }
}
