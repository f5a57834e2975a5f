import QEDEngine
import QEDFormat
import SystemPackage

/// What ends a life that is not closed in good order.
public enum CrashModel: String, Sendable, CaseIterable {
    case powerCut
    /// The process is killed, and its mapping log outlives it; sometimes the power is cut all the same.
    case kill
}

/// A long history from one seed: a scene, requests of all kinds at once, ticks, closes, crashes, and lives after them.
///
/// The seed also decides what kind of history it is (few or many requests at once, a cache of few pages, one or two queues,
/// how often it flushes), so that each leaves other things out.
public struct RandomHistory {
    public struct Report: Sendable, Equatable {
        public var states = 0
        public var requests = 0
        public var operations = 0
        /// How often all queues were held until the engine was quiet.
        public var quietMoments = 0
        /// How many snapshots were taken, sealed, and found to hold what the device held.
        public var snapshots = 0
        /// How often snapshots were merged into one beneath them.
        public var merges = 0
        public var rollbacks = 0
        /// How often ranges were fetched from the bottom of the chain beside the requests.
        public var fetches = 0
    }

    public let seed: UInt64
    public let requestLimit: Int
    public let model: CrashModel
    private var random: SeededRandom
    public let scene: Scene
    private var options = Machine.Options()
    private let windows: [Range<Int>]
    private let concurrency: Int
    private let blockSectors: Int
    private let checkOneIn: Int
    private let flushPercent: Int
    private let zeroPercent: Int
    private let largestSectors: Int
    /// How often an operation of the disk fails, in a thousand steps.
    private let faultsPerThousand: Int
    /// Of the mapping log, in records.
    private let logCapacity: Int
    private var quiesce: Quiesce?
    /// Decides when something is fetched, where reads are kept: the other histories stay what they were.
    private var fetchRandom: SeededRandom
    private var fetches = 0

    public init(seed: UInt64, model: CrashModel = .powerCut, requestLimit: Int = 120) {
        self.seed = seed
        self.model = model
        self.requestLimit = requestLimit
        random = SeededRandom(seed: seed)
        fetchRandom = SeededRandom(seed: seed ^ 0xfe7c)
        let clusterSizeBytes = random.pick([4096, 4096, 4096, 16384, 65536] as [UInt64])
        let isWide = random.chance(1, in: 3)
        let imageSizeBytes: UInt64 = isWide ? 100 << 20 : clusterSizeBytes * 24
        scene = Scene(
            clusterSizeBytes: clusterSizeBytes, imageSizeBytes: imageSizeBytes,
            base: random.pick([.none, .none, .raw, .short, .qed]))
        concurrency = random.pick([1, 2, 4, 8, 16, 64])
        options.queueCount = random.chance(1, in: 4) ? 2 : 1
        options.depth = max(concurrency / options.queueCount, 1)
        options.alignmentBytes = random.pick([1, 512, 512, 4096])
        options.slowPercent = random.pick([0, 10, 40])
        blockSectors = max(options.alignmentBytes / 512, 1)
        flushPercent = random.pick([1, 5, 15])
        zeroPercent = random.pick([0, 10, 30])
        faultsPerThousand = random.pick([0, 0, 4])
        checkOneIn = random.pick([2, 4, 8])
        let sectors = Int(imageSizeBytes / 512)
        let clusterSectors = Int(clusterSizeBytes / 512)
        if isWide {
            // More pages than the smallest cache holds, around the ends of tables, pages and the backing file.
            var places = (0..<random.pick([18, 40])).map { Int(clusterSizeBytes) / 8 * $0 * 8 % (sectors - 64) }
            places.append(sectors - 64)
            places.append(Int(scene.baseBytes / 512) / 64 * 64)
            windows = places.map { first in
                let start = min(max(first / clusterSectors * clusterSectors, 0), sectors - 64)
                return start..<min(start + max(16, min(clusterSectors, 32)), sectors)
            }
        } else {
            windows = [0..<min(sectors, 1024)]
        }
        largestSectors = random.pick([8, 2 * clusterSectors, 4 * clusterSectors]).clamped(to: blockSectors...512)
        // One table of 4 KiB clusters has two pages.
        // Space that runs out again and again, while requests wait for it and while it is extended ahead.
        if seed % 3 == 2 { options.smallestChunkBytes = clusterSizeBytes << (seed / 3 % 4) }
        options.keepsReads = seed % 11 % 2 == 1
        if seed % 5 == 4 { options.pageWordLimit = isWide ? 20 : 0 }
        logCapacity = model == .kill ? random.pick([6, 16, 64, 256]) : 0
        // In a part of them, with chances of its own: the others stay the histories that they were.
        if seed % 7 % 2 == 1 { quiesce = Quiesce(seed: seed, windows: windows, switchesTop: seed % 4 >= 2) }
    }

    // MARK: - Requests

    private mutating func nextRequest() -> PlayedRequest {
        let window = random.pick(windows)
        let blocks = window.count / blockSectors
        let largest = min(max(largestSectors / blockSectors, 1), blocks)
        let clusterSectors = Int(scene.clusterSizeBytes / 512)
        var first = random.below(blocks)
        var count = min(1 + random.below(largest), blocks - first)
        if random.chance(1, in: 4), window.count >= clusterSectors, clusterSectors % blockSectors == 0 {
            // Whole clusters.
            first = first * blockSectors / clusterSectors * clusterSectors / blockSectors
            count = min(clusterSectors / blockSectors * (1 + random.below(2)), blocks - first)
        }
        let start = window.lowerBound + first * blockSectors
        let range = start..<(start + count * blockSectors)
        let dice = random.below(100)
        if dice < flushPercent { return PlayedRequest(.flush) }
        if dice < flushPercent + zeroPercent {
            return random.chance(1, in: 3)
                ? PlayedRequest(.discard, range)
                : PlayedRequest(.writeZeroes, range, fua: random.chance(1, in: 8), keepsSpace: random.chance(1, in: 3))
        }
        if random.chance(1, in: 4) { return PlayedRequest(.read, range) }
        return PlayedRequest(.write, range, fua: random.chance(1, in: 12))
    }

    // MARK: - Playing

    /// - Throws: `Violation` or `Machine.Hang`.
    public mutating func run(
        keepsLog: Bool = false, observer: ((CrashState) throws -> Void)? = nil
    ) throws -> Report {
        let scene = self.scene
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        if let observer { check.observer = { try observer(CrashState(disk: $0, history: $1)) } }
        let kills = model == .kill ? KillCheck(powerCut: check, logCapacity: logCapacity, seed: seed) : nil
        var report = Report()
        let history = SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) }
        var machine = self.machine(on: try scene.makeDisk(), [], backing, kills?.makeSession())
        try check.open(machine, "a new image")
        machine.session?.catchUp()
        let player = Player(
            machine: machine, history: history, depth: options.depth, largestSectors: 512)
        player.keepsLog = keepsLog
        do {
            for life in 0..<3 {
                try play(player, check, kills)
                report.operations += machine.completedOperations
                let isLast = life == 2
                let closes = random.chance(1, in: 3) && !machine.isHeld
                if closes { try drain(player, kills) }
                // A sync that failed meanwhile: nothing but another start mends that.
                if closes && machine.io.failedSyncs == 0 {
                    try close(machine, player, check, kills)
                    if isLast { break }
                    machine = self.machine(on: machine.disk, try machine.sealedNow(), backing, kills?.makeSession())
                    try check.open(machine, "the closed image")
                    machine.session?.catchUp()
                    player.goOn(with: machine)
                } else if let kills, kills.mayKill(machine), random.chance(3, in: 4) {
                    let syncHasFailed = machine.io.failedSyncs > 0
                    let left = try kills.leftover(of: machine)
                    var sealed = left.sealed
                    try machine.takeDown()
                    if isLast { break }
                    if let lower = left.lower { sealed.insert(try kills.seal(lower, over: sealed), at: 0) }
                    machine = self.machine(on: left.image.disk, sealed, backing, left.image.session)
                    try recover(machine, player, check, kills, afterFailedSync: syncHasFailed)
                } else {
                    let left = try check.survivor(of: machine)
                    // With its memory a file on a disk a log outlives the power cut, and must not be believed.
                    let log = kills?.makeSession()
                    if let old = machine.session { log?.survivePowerCut(of: old) }
                    try machine.takeDown()
                    if isLast { break }
                    machine = self.machine(on: left.disk, left.sealed, backing, log)
                    try recover(machine, player, check, kills)
                }
            }
        } catch {
            if keepsLog { throw Violation((player.log + ["\(error)"]).joined(separator: "\n")) }
            throw error
        }
        report.states = check.states + (kills?.states ?? 0)
        report.requests = player.finishedCount
        report.quietMoments = quiesce?.count ?? 0
        report.snapshots = quiesce?.snapshots ?? 0
        report.merges = quiesce?.merges ?? 0
        report.rollbacks = quiesce?.rollbacks ?? 0
        report.fetches = fetches
        return report
    }

    private mutating func machine(
        on disk: SimulatedDisk, _ sealed: [FrozenLayer], _ backing: [Machine.BackingFile], _ session: SimulatedSession?
    ) -> Machine {
        Machine(disk: disk, sealed: sealed, backing: backing, options: options, seed: random.next(), session: session)
    }

    private func drain(_ player: Player, _ kills: KillCheck?) throws {
        let windows = self.windows
        try player.drain {
            try kills?.killBetweenStores(player.machine, player.history, windows)
        } afterStep: { _ in
        }
    }

    private mutating func close(
        _ machine: Machine, _ player: Player, _ check: CrashCheck, _ kills: KillCheck?
    ) throws {
        machine.fault = nil
        let last = player.history
        let windows = self.windows
        try quiesce?.finishMerge(machine)
        if let lower = try machine.finishSwitch() {
            try check.checkSnapshot(lower, over: Array(machine.sealed.dropFirst()), windows)
        }
        let error = try machine.close { _ in
            try kills?.killBetweenStores(machine, last, windows)
            try kills?.kill(machine, last, windows, samples: 1)
        }
        if let error { throw Violation("closing fails: \(error)") }
        try check.checkClosed(
            machine.disk, over: try machine.sealedNow(), windows, allows: { last.mayRead($0, $1, start: last.now) },
            explain: { last.explain($0) })
    }

    /// Opens what a power cut has left, with more power cuts meanwhile, and takes what it reads as the truth.
    private mutating func recover(
        _ machine: Machine, _ player: Player, _ check: CrashCheck, _ kills: KillCheck?
    ) throws {
        let before = player.history
        let windows = self.windows
        let refusal = try machine.open { completed in
            if completed { try check.cutPower(machine, before, windows, limit: 16, samples: 3) }
        }
        if let refusal { throw Violation("the image that is left is refused: \(refusal)") }
        // The log is made anew, before a read that is kept can make the header name it. As after a failed sync: what the power
        // cut took was not promised.
        try kills?.killBetweenStores(machine, before, windows, afterFailedSync: true)
        var after = before
        _ = after.advance()
        let time = after.now
        try check.readBack(machine, windows, "after recovery") { sector, value in
            let isAllowed = before.maySurvive(sector, value)
            if before.isTouched(sector) { after.settle(sector, value: value) }
            return isAllowed
        } explain: {
            before.explain($0)
        }
        after.flushed(start: time + 1)
        _ = after.advance()
        _ = after.advance()
        player.history = after
        player.goOn(with: machine)
    }

    /// Opens what a kill has left, with more kills and power cuts meanwhile. What it reads is the truth, but durable only
    /// as far as it was: after a failed sync no flush makes it so.
    private mutating func recover(
        _ machine: Machine, _ player: Player, _ check: CrashCheck, _ kills: KillCheck, afterFailedSync: Bool
    ) throws {
        var history = player.history
        _ = history.advance()
        history.processKilled()
        let before = history
        let windows = self.windows
        // A replay of many pages takes many steps.
        let interval = windows.count
        var step = 0
        try check.open(machine, "what a kill has left") { completed in
            step += 1
            guard step % interval == 0 else { return }
            try kills.killBetweenStores(machine, before, windows, afterFailedSync: afterFailedSync)
            try kills.kill(machine, before, windows, samples: 1, afterFailedSync: afterFailedSync)
            if completed { try check.cutPower(machine, before, windows, limit: 16, samples: 3) }
        }
        let start = history.advance()
        _ = history.advance()
        try check.readBack(machine, windows, afterFailedSync ? "after a failed sync" : "after a kill") { sector, value in
            history.readAfterKill(sector, value, start: start, afterFailedSync: afterFailedSync)
        } explain: {
            before.explain($0)
        }
        player.history = history
        player.goOn(with: machine)
    }

    /// Lets one of the next operations fail, once or until the next fault is planted or the fault is taken away.
    private mutating func plantFault(_ player: Player) {
        let machine = player.machine
        if machine.fault != nil, random.chance(1, in: 2) {
            machine.fault = nil
            return
        }
        var effect = random.pick([.error(.ioError), .error(.noSpace), .error(.interrupted), .short] as [Fault.Effect])
        let operation = machine.completedOperations + random.below(8)
        let isPersistent = effect != .error(.interrupted) && random.chance(1, in: 4)
        // Kernels have two ways to say that an operation has done nothing yet.
        if effect == .error(.interrupted) && operation % 2 == 0 { effect = .error(.resourceTemporarilyUnavailable) }
        machine.fault = Fault(effect, operation: operation, isPersistent: isPersistent)
        if effect == .error(.ioError) { machine.fault?.isOfSyncs = random.chance(2, in: 3) }
        player.allowedErrors = [Errno.ioError.rawValue, Errno.noSpace.rawValue]
    }

    /// Begins to fetch some of the disk, now and then, where what is read is kept.
    private mutating func fetchSomething(_ machine: Machine) {
        guard options.keepsReads, fetchRandom.chance(1, in: 60) else { return }
        let window = fetchRandom.pick(windows)
        let first = window.lowerBound + fetchRandom.below(window.count)
        let range = UInt64(first) * 512..<UInt64(first + 1 + fetchRandom.below(window.upperBound - first)) * 512
        if machine.beginFetch(range) { fetches += 1 }
    }

    private mutating func play(_ player: Player, _ check: CrashCheck, _ kills: KillCheck?) throws {
        let machine = player.machine
        let windows = self.windows
        player.allowedErrors = []
        var started = 0
        var steps = 0
        let startPercent = random.pick([5, 20, 60])
        while started < requestLimit {
            steps += 1
            guard steps <= Machine.longestRun else {
                throw Machine.Hang(reason: "\(player.pendingCount) requests go on for ever")
            }
            if player.hasFreeSlot && (player.pendingCount == 0 || random.chance(startPercent, in: 100)) {
                player.start(nextRequest())
                started += 1
                try kills?.killBetweenStores(machine, player.history, windows)
            }
            if quiesce?.isDue() == true {
                let arrivals = (0..<8).map { _ in nextRequest() }
                if try quiesce?.perform(player, check, kills, arrivals: arrivals) == true { return }
            }
            fetchSomething(machine)
            if random.chance(faultsPerThousand, in: 1000) { plantFault(player) }
            if machine.io.failedSyncs > 0 && random.chance(1, in: 100) { return }
            if random.chance(1, in: 200) { machine.tick(milliseconds: random.chance(1, in: 2) ? 1_000 : 6_000) }
            let completed = machine.step()
            try kills?.killBetweenStores(machine, player.history, windows)
            try player.poll()
            if random.chance(1, in: 2) { machine.endOfBatch() }
            if completed == nil && player.pendingCount > 0 && !player.machine.hasReady {
                throw Machine.Hang(reason: "nothing is ready, nothing in flight, \(player.pendingCount) requests wait")
            }
            if let kills {
                // Each looks at all of them.
                let interval = windows.count > 1 ? 8 * checkOneIn : checkOneIn
                if random.chance(1, in: interval) { try kills.kill(machine, player.history, windows, samples: 2) }
            } else if completed == true, random.chance(1, in: checkOneIn) {
                try check.cutPower(machine, player.history, windows, limit: 8, samples: 4)
            }
            if player.pendingCount == 0, random.chance(1, in: 4) {
                for window in windows { for sector in window { player.history.prune(sector) } }
            }
            if random.chance(1, in: 150) {
                try drain(player, kills)
                machine.fault = nil
                if random.chance(1, in: 2) {
                    // Idle for long: commit, then trim. At any of these times requests may come again, and meet it.
                    let idleTicks = random.below(5)
                    for number in 0..<4 {
                        machine.tick(milliseconds: 6_000)
                        if number >= idleTicks { break }
                        try machine.settle { completed in
                            try kills?.killBetweenStores(machine, player.history, windows)
                            if completed {
                                try kills?.kill(machine, player.history, windows, samples: 1)
                                try check.cutPower(machine, player.history, windows, limit: 8, samples: 4)
                            }
                        }
                    }
                }
            }
        }
    }
}

/// What a power cut has left, for a judge outside the simulation.
public struct CrashState {
    public let disk: SimulatedDisk
    let history: SectorHistory

    /// Compares the content of the device, as another program reads it, with what the model allows.
    /// - Returns: the first sector that holds something else.
    public func firstSectorThatMayNotBe(_ device: UnsafeRawBufferPointer) -> Int? {
        guard let base = device.baseAddress, device.count == Int(history.sizeBytes) else { return 0 }
        return (0..<(device.count / 512)).first { !history.maySurvive($0, SectorValue.read(base + $0 * 512)) }
    }
}

extension Comparable {
    fileprivate func clamped(to range: ClosedRange<Self>) -> Self { min(max(self, range.lowerBound), range.upperBound) }
}
