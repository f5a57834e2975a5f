import QEDEngine

/// At random moments of a history all queues are held until the engine is quiet, as `DeviceQueues.whileQuiet` does it for a
/// device, and then go on.
///
/// What is judged is what a copy or a switch of the file relies on while they are quiet:
///
/// - No storage operation is under way, and whatever is ready to run begins none, however much time goes by.
/// - What was answered is in the file, with the log of a killed process or as far as it was flushed, and of the requests that
///   are kept there is nothing.
/// - Where everything was flushed before, the durable bytes alone are the whole disk.
struct Quiesce {
    private var random: SeededRandom
    private let windows: [Range<Int>]
    /// Whether in some of these moments an empty overlay becomes the top of the chain: a snapshot.
    private let switchesTop: Bool
    /// How many snapshots were taken, sealed, and found to hold what they should.
    private(set) var snapshots = 0
    /// How often snapshots were merged.
    private(set) var merges = 0
    /// How often the disk was put back to a snapshot.
    private(set) var rollbacks = 0
    /// How often all queues were quiet.
    private(set) var count = 0

    init(seed: UInt64, windows: [Range<Int>], switchesTop: Bool = false) {
        random = SeededRandom(seed: seed ^ 0x901e7)
        self.windows = windows
        self.switchesTop = switchesTop
    }

    /// Asked at every step of a history.
    mutating func isDue() -> Bool { random.chance(1, in: 80) }

    /// - Parameter arrivals: requests that come meanwhile, as far as there are slots.
    /// - Returns: true when the machine's life is to end while its queues are quiet.
    mutating func perform(
        _ player: Player, _ check: CrashCheck, _ kills: KillCheck?, arrivals: [PlayedRequest]
    ) throws -> Bool {
        let machine = player.machine
        var arrivals = arrivals[...]
        switch machine.lower?.seal {
        case .open:
            machine.beginSeal()
            return false
        case .underWay: return false
        case .done, nil: break
        }
        if try goOnMerging(machine, check.scene) { return false }
        let rollback = try prepareRollback(player, check.scene, kills)
        let next = rollback == nil ? try prepareSwitch(player, check.scene, kills) : nil
        let isFlushed = random.chance(1, in: 3) ? try flush(player, kills) : false
        // Then there is housekeeping to wait for: a commit, and a trim if it is for the second time.
        for _ in 0..<random.below(3) {
            machine.tick(milliseconds: 6_000)
            for _ in 0..<random.below(6) { _ = try step(player, kills) }
        }
        try hold(player, kills, isFlushed ? nil : arrivals.popFirst())
        try awaitQuiet(player, kills, &arrivals)
        count += 1
        try look(player, check, kills, isFlushed: isFlushed)

        let completed = machine.completedOperations
        for _ in 0..<4 {
            if random.chance(1, in: 2) { arrive(player, &arrivals) }
            if random.chance(1, in: 2) { machine.tick(milliseconds: 6_000) }
            while try step(player, kills) != nil { try expectQuiet(player) }
            try expectQuiet(player)
        }
        guard machine.completedOperations == completed else {
            throw Violation("storage was touched while all queues were quiet")
        }
        try look(player, check, kills, isFlushed: isFlushed)
        if machine.merge?.phase == .named {
            try machine.finishMerge()
            try look(player, check, kills, isFlushed: isFlushed)
            merges += 1
        } else if let rollback, machine.io.failedSyncs == 0 {
            machine.rollBack(to: rollback.next, removing: rollback.removedCount)
            player.goBack { check.scene.value($0, through: machine.sealed) }
            try look(player, check, kills, isFlushed: true)
            rollbacks += 1
        } else if let next {
            if machine.lower != nil { try adopt(machine, check) }
            machine.switchTop(to: next, player.historyWithoutKept)
            try look(player, check, kills, isFlushed: false)
        } else if machine.lower != nil {
            try adopt(machine, check)
            try look(player, check, kills, isFlushed: isFlushed)
        }

        if random.chance(1, in: 8) {
            player.withdrawKept()
            return true
        }
        for queue in machine.queues.shuffled(using: &random) {
            queue.resume()
            for _ in 0..<random.below(4) { _ = try step(player, kills) }
        }
        return false
    }

    private mutating func adopt(_ machine: Machine, _ check: CrashCheck) throws {
        let snapshot = machine.adopt()
        try check.checkSnapshot(snapshot, over: Array(machine.sealed.dropFirst()), windows)
        snapshots += 1
    }

    /// Begins to merge snapshots, in a part of the moments, or takes the next step of a merge that is under way.
    /// - Returns: whether there is nothing to be quiet for yet.
    private mutating func goOnMerging(_ machine: Machine, _ scene: Scene) throws -> Bool {
        guard switchesTop else { return false }
        switch machine.merge?.phase {
        case nil:
            guard machine.lower == nil, machine.sealed.count > 1, machine.io.failedSyncs == 0, random.chance(1, in: 2) else {
                return false
            }
            try machine.beginMerge(removing: 1 + random.below(machine.sealed.count - 1), scene: scene, windows: windows)
            return true
        // It touches storage, which nobody may while all is quiet.
        case .copying: return true
        case .naming: return random.chance(1, in: 2)
        case .copied:
            // The first queue does one thing of its own at a time.
            if machine.isFetching { return true }
            try machine.nameMergeTarget()
            return true
        case .named: return false
        case .failed: return false
        }
    }

    /// A merge that is under way comes to its end, or is given up: the image is about to be closed.
    mutating func finishMerge(_ machine: Machine) throws {
        guard machine.merge != nil else { return }
        try machine.settle()
        if machine.merge?.phase == .copied {
            try machine.nameMergeTarget()
            try machine.settle()
        }
        guard machine.merge?.phase == .named else { return }
        for queue in machine.queues { queue.hold() }
        defer { for queue in machine.queues { queue.resume() } }
        try machine.settle()
        try machine.finishMerge()
        merges += 1
    }

    /// Opens an overlay for a switch, in a part of the moments, where there is none under way: the last one's tables may be left
    /// to be adopted.
    private mutating func prepareSwitch(_ player: Player, _ scene: Scene, _ kills: KillCheck?) throws -> NextTop? {
        let machine = player.machine
        guard switchesTop, machine.lower?.seal ?? .done == .done, machine.merge == nil, machine.io.failedSyncs == 0,
            random.chance(2, in: 3)
        else { return nil }
        return try prepare(player, kills) { log, afterStep in
            try machine.openOverlay(on: try scene.makeOverlay(), log, afterStep: afterStep)
        }
    }

    /// Opens an overlay over one of the snapshots, in a part of the moments.
    private mutating func prepareRollback(
        _ player: Player, _ scene: Scene, _ kills: KillCheck?
    ) throws -> (next: NextTop, removedCount: Int)? {
        let machine = player.machine
        guard switchesTop, machine.lower == nil, machine.merge == nil, !machine.sealed.isEmpty, machine.io.failedSyncs == 0,
            random.chance(1, in: 4)
        else { return nil }
        let removedCount = random.below(machine.sealed.count)
        let next = try prepare(player, kills) { log, afterStep in
            try machine.openOverlay(on: try scene.makeOverlay(), beneath: removedCount, log, afterStep: afterStep)
        }
        return (next, removedCount)
    }

    private func prepare(
        _ player: Player, _ kills: KillCheck?, _ open: (SimulatedSession?, (Bool) throws -> Void) throws -> NextTop
    ) throws -> NextTop {
        let machine = player.machine
        let (fault, windows) = (machine.fault, self.windows)
        machine.fault = nil
        defer { machine.fault = fault }
        let log = kills?.makeSession()
        let next = try open(log) { _ in
            log?.catchUp()
            try kills?.killBetweenStores(machine, player.history, windows)
        }
        log?.catchUp()
        return next
    }

    // MARK: - Until they are quiet

    /// All requests are answered, and made durable.
    /// - Returns: whether they are.
    private func flush(_ player: Player, _ kills: KillCheck?) throws -> Bool {
        let before = player.history.flushedStart
        try drain(player, kills)
        player.start(PlayedRequest(.flush))
        try drain(player, kills)
        return player.history.flushedStart > before && player.machine.io.failedSyncs == 0 && !player.history.hasLosses
    }

    private func drain(_ player: Player, _ kills: KillCheck?) throws {
        try player.drain {
            try kills?.killBetweenStores(player.machine, player.history, windows)
        } afterStep: { _ in
        }
    }

    /// Each queue hears of it in its own time.
    private mutating func hold(_ player: Player, _ kills: KillCheck?, _ arrival: PlayedRequest?) throws {
        for queue in player.machine.queues.shuffled(using: &random) {
            queue.hold()
            for _ in 0..<random.below(4) { _ = try step(player, kills) }
        }
        if let arrival, player.hasFreeSlot { player.start(arrival) }
    }

    private mutating func awaitQuiet(
        _ player: Player, _ kills: KillCheck?, _ arrivals: inout ArraySlice<PlayedRequest>
    ) throws {
        let machine = player.machine
        for _ in 0..<Machine.longestRun {
            let quiet = machine.queues.filter(\.isQuiet)
            if quiet.count == machine.queueCount { return }
            if random.chance(1, in: 8) { arrive(player, &arrivals) }
            let didStep = try step(player, kills) != nil
            guard quiet.allSatisfy(\.isQuiet) else { throw Violation("a queue that was quiet is busy again") }
            guard didStep || machine.hasReady || machine.isQuiet else {
                throw Machine.Hang(reason: "the queues are held, nothing is under way, and they are not quiet")
            }
        }
        throw Machine.Hang(reason: "the queues are held, and never quiet")
    }

    private func arrive(_ player: Player, _ arrivals: inout ArraySlice<PlayedRequest>) {
        if player.hasFreeSlot, let arrival = arrivals.popFirst() { player.start(arrival) }
    }

    private mutating func step(_ player: Player, _ kills: KillCheck?) throws -> Bool? {
        let machine = player.machine
        let completed = machine.step()
        try kills?.killBetweenStores(machine, player.history, windows)
        try player.poll()
        if random.chance(1, in: 2) { machine.endOfBatch() }
        try kills?.killBetweenStores(machine, player.history, windows)
        return completed
    }

    // MARK: - While they are quiet

    private func expectQuiet(_ player: Player) throws {
        let machine = player.machine
        if let operation = machine.io.inFlight.first(where: \.isOfStorage) {
            throw Violation("\(operation.kind) is under way while all queues are quiet")
        }
        guard machine.isQuiet else { throw Violation("a queue that was quiet is busy again") }
        guard player.keptCount == player.pendingCount else {
            throw Violation("a request is under way while all queues are quiet")
        }
    }

    private func look(_ player: Player, _ check: CrashCheck, _ kills: KillCheck?, isFlushed: Bool) throws {
        try expectQuiet(player)
        let machine = player.machine
        let history = player.historyWithoutKept
        try kills?.kill(machine, history, windows, samples: 1)
        try check.cutPower(machine, history, windows, limit: 8, samples: 4)
        guard isFlushed else { return }
        try check.checkDurable(
            machine, "what was flushed before all queues were quiet", windows,
            allows: { history.mayRead($0, $1, start: history.now + 1) }, explain: { history.explain($0) })
    }
}
