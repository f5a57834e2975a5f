import QEDEngine

/// Judges what a killed process leaves: the next one opens the image with the log, and finds everything that was
/// acknowledged.
///
/// The model: the machine runs on. What has completed is in the file, whether it was synced or not; of operations in
/// flight any part may have happened (`Leftovers`); the log's memory holds every store that was made, up to any one of
/// them; everything else is gone. A power cut may follow at any moment, and takes the log with it.
///
/// Once a sync has failed, what it should have made durable may be gone as well: then no more is asked for than after a
/// power cut, and that holds for the power cut that follows. One moment is left out: between the kernel's answer and the
/// note of it in the log nobody else can know that anything is lost.
final class KillCheck {
    /// A disk and a log for a kill; a kill while the image is opened after a kill needs another.
    private struct Level {
        let disk = SimulatedDisk()
        let session: SimulatedSession
    }

    private let powerCut: CrashCheck
    private let logCapacity: Int
    private let levels: [Level]
    /// For what was the top before a switch.
    private let lowerLevel: Level
    private var random: SeededRandom
    /// Leftovers that were checked.
    private(set) var states = 0
    /// One opening in so many is cut short by kills and power cuts, at one step in so many.
    var nestedInterval = 4
    private static let nestedStepInterval = 8
    /// One leftover in so many is read through the engine as well.
    var readInterval = 8
    /// One leftover in so many gets a second life.
    var deepInterval = 32

    init(powerCut: CrashCheck, logCapacity: Int, seed: UInt64) {
        self.powerCut = powerCut
        self.logCapacity = logCapacity
        levels = (0..<2).map { _ in Level(session: SimulatedSession(capacity: logCapacity)) }
        lowerLevel = Level(session: SimulatedSession(capacity: logCapacity))
        random = SeededRandom(seed: seed ^ 0x6111)
    }

    /// A log for a machine that is to be killed.
    func makeSession() -> SimulatedSession { SimulatedSession(capacity: logCapacity) }

    // MARK: - When

    /// What a machine's failed syncs mean for who is killed on it.
    private struct Loss {
        /// Acknowledged writes may be lost.
        var isPossible: Bool
        /// And the log does not say so yet.
        var isUnnoted: Bool
    }

    private func loss(on machine: Machine, betweenStores: Bool) -> Loss {
        let isPossible = machine.io.failedSyncs > 0
        return Loss(isPossible: isPossible, isUnnoted: isPossible && (betweenStores || machine.image?.failedSync == nil))
    }

    /// Whether a kill now leaves a log that says what is lost.
    func mayKill(_ machine: Machine) -> Bool { !loss(on: machine, betweenStores: false).isUnnoted }

    /// Kills the process between the stores to the log that the last step has made.
    /// - Parameter afterFailedSync: of an earlier process: `history` knows that something may be lost.
    func killBetweenStores(
        _ machine: Machine, _ history: SectorHistory, _ ranges: [Range<Int>], afterFailedSync: Bool = false
    ) throws {
        try killBetweenStores(machine, history, ranges, level: 0, Loss(isPossible: afterFailedSync, isUnnoted: false))
    }

    /// Kills the process now.
    /// - Parameters:
    ///   - samples: of what operations in flight have left.
    ///   - afterFailedSync: of an earlier process: `history` knows that something may be lost.
    func kill(
        _ machine: Machine, _ history: SectorHistory, _ ranges: [Range<Int>], samples: Int, afterFailedSync: Bool = false
    ) throws {
        try kill(
            machine, history, ranges, samples: samples, level: 0, Loss(isPossible: afterFailedSync, isUnnoted: false))
    }

    /// A file and its log as a killed process leaves them.
    struct Left {
        var disk: SimulatedDisk
        var session: SimulatedSession
    }

    /// Kills the process for good.
    /// - Returns: the image that it leaves; what was the top before a switch, if that was not sealed yet.
    func leftover(of machine: Machine) throws -> (image: Left, lower: Left?, sealed: [FrozenLayer]) {
        func left(_ disk: SimulatedDisk, _ log: SimulatedSession?) -> Left {
            log?.catchUp()
            let leftovers = Leftovers(of: disk, inFlight: machine.io.inFlight)
            leftovers.makeSample(on: levels[0].disk, &random)
            let session = makeSession()
            if let log { session.inherit(from: log) }
            return Left(disk: levels[0].disk.clone(), session: session)
        }
        let image = left(machine.disk, machine.session)
        let target = machine.merge.map { left($0.target, nil).disk }
        makeNamesDurable(image.disk, machine)
        return (
            image, machine.lower.map { left($0.disk, $0.session) },
            try machine.sealedLayers(under: image.disk, target: target)
        )
    }

    /// The next process finds that the image names what snapshots were merged into, and takes the others away, or that it names
    /// nothing any more. What it has read may not be durable yet: it sees to that first.
    private func makeNamesDurable(_ disk: SimulatedDisk, _ machine: Machine) {
        let name = Machine.backingName(of: disk)
        guard
            machine.merge?.name == name || (machine.flattening != nil && name.isEmpty)
                || (machine.forgetting != nil && name == SimulatedForgetting.bottomName)
        else { return }
        disk.makeAllDurable()
    }

    /// Brings what was the top before a switch to its end, as the next process does before it opens the image: replays its log,
    /// and closes it. One in so many is killed while it does, and the next one has to.
    func seal(_ left: Left, over sealed: [FrozenLayer]) throws -> FrozenLayer {
        var stepsToLive = random.chance(1, in: KillCheck.killedSealInterval) ? 1 + random.below(KillCheck.stepsOfASeal) : 0
        var remains: Left?
        let machine = machine(on: left.disk, over: sealed, left.session)
        let afterStep: (Bool) throws -> Void = { _ in
            stepsToLive -= 1
            guard stepsToLive == 0 else { return }
            let disk = SimulatedDisk()
            Leftovers(of: machine.disk, inFlight: machine.io.inFlight).makeSample(on: disk, &self.random)
            left.session.catchUp()
            let session = self.makeSession()
            session.inherit(from: left.session)
            remains = Left(disk: disk.clone(), session: session)
        }
        try powerCut.open(machine, "what was the top before a switch", afterStep: afterStep)
        if let error = try machine.close(afterStep: afterStep) {
            throw Violation("closing what was the top before a switch fails: \(error)")
        }
        left.session.catchUp()
        if let remains { return try seal(remains, over: sealed) }
        return FrozenLayer(left.disk)
    }

    private static let killedSealInterval = 8
    /// About as many as one takes: the steps of what ends sooner kill nobody.
    private static let stepsOfASeal = 24

    /// Of more stores in one step than these (a log is formatted) only some of the moments between are looked at.
    private static let fewStores = 16

    private func killBetweenStores(
        _ machine: Machine, _ history: SectorHistory, _ ranges: [Range<Int>], level: Int, _ earlier: Loss
    ) throws {
        guard let session = machine.session else { return }
        for log in [machine.lower?.session, session] {
            try log?.catchUp { count in
                if count > KillCheck.fewStores && !random.chance(KillCheck.fewStores / 2, in: count) { return }
                try kill(machine, history, ranges, samples: 0, level: level, earlier, betweenStores: true)
            }
        }
    }

    private func kill(
        _ machine: Machine, _ history: SectorHistory, _ ranges: [Range<Int>], samples: Int, level: Int,
        _ earlier: Loss, betweenStores: Bool = false
    ) throws {
        guard let session = machine.session else { return }
        let leftovers = Leftovers(of: machine.disk, inFlight: machine.io.inFlight)
        var choices = SeededRandom(seed: random.next())
        var loss = loss(on: machine, betweenStores: betweenStores)
        loss.isPossible = loss.isPossible || earlier.isPossible
        loss.isUnnoted = loss.isUnnoted || earlier.isUnnoted
        try leftovers.forEach(on: levels[level].disk, samples: samples, random: &choices) {
            guard let lower = machine.lower, let log = lower.session else {
                var target: SimulatedDisk?
                if let merge = machine.merge {
                    precondition(level == 0, "a merge while an image is opened")
                    Leftovers(of: merge.target, inFlight: machine.io.inFlight).makeSample(on: lowerLevel.disk, &random)
                    target = lowerLevel.disk
                }
                let sealed = try machine.sealedLayers(under: levels[level].disk, target: target)
                makeNamesDurable(levels[level].disk, machine)
                return try check(session, over: sealed, history, ranges, level: level, loss)
            }
            precondition(level == 0, "a switch while an image is opened")
            Leftovers(of: lower.disk, inFlight: machine.io.inFlight).makeSample(on: lowerLevel.disk, &random)
            lowerLevel.session.inherit(from: log)
            let sealed = try seal(Left(disk: lowerLevel.disk, session: lowerLevel.session), over: machine.sealed)
            try check(session, over: [sealed] + machine.sealed, history, ranges, level: level, loss)
        }
    }

    // MARK: - What is left

    private func check(
        _ left: SimulatedSession, over sealed: [FrozenLayer], _ history: SectorHistory, _ ranges: [Range<Int>], level: Int,
        _ loss: Loss
    ) throws {
        states += 1
        let number = states
        let (disk, session) = (levels[level].disk, levels[level].session)
        try checkStructure(disk, "what a kill has left")
        session.inherit(from: left)
        let machine = self.machine(on: disk, over: sealed, session)
        let isNested = level + 1 < levels.count && number % nestedInterval == 0
        try powerCut.open(machine, "what a kill has left") { completed in
            guard isNested, random.chance(1, in: KillCheck.nestedStepInterval) else {
                session.catchUp()
                return
            }
            try killBetweenStores(machine, history, ranges, level: level + 1, loss)
            try kill(machine, history, ranges, samples: 1, level: level + 1, loss)
            if completed && !loss.isUnnoted { try powerCut.cutPower(machine, history, ranges, limit: 4, samples: 3) }
        }
        // A replay leaves nothing in memory: the file must say it all.
        let mayRead = { (sector: Int, value: UInt64) in
            loss.isPossible ? history.maySurvive(sector, value) : history.mayRead(sector, value, start: history.now + 1)
        }
        try powerCut.checkBytes(
            disk, over: sealed, "the image that a replay has left", allows: mayRead, explain: { history.explain($0) },
            ranges: ranges)
        if loss.isPossible && !loss.isUnnoted { try powerCut.cutPower(machine, history, ranges, limit: 4, samples: 3) }
        let isDeep = level == 0 && !loss.isPossible && !history.hasLosses && number % deepInterval == 0
        guard isDeep || number % readInterval == 0 else {
            try machine.takeDown()
            return
        }
        var values: [UInt64] = []
        try powerCut.readBack(machine, ranges, "after a kill") { sector, value in
            if isDeep { values.append(value) }
            return mayRead(sector, value)
        } explain: {
            history.explain($0)
        }
        if isDeep {
            try liveOn(machine, DeviceContent(ranges, values))
        } else {
            try machine.takeDown()
        }
    }

    private func machine(
        on disk: SimulatedDisk, over sealed: [FrozenLayer], _ session: SimulatedSession
    ) -> Machine {
        Machine(
            disk: disk, sealed: sealed, backing: powerCut.backing, options: Machine.Options(), seed: random.next(),
            session: session)
    }

    private func checkStructure(_ disk: SimulatedDisk, _ what: String) throws {
        let walk = StructureWalk(disk.current, length: disk.length)
        if let problem = walk.problem { throw Violation("\(what): \(problem)") }
    }

    /// A second life: a flush, which covers what the dead process had acknowledged as well; some writes, and another
    /// kill; then a close.
    private func liveOn(_ machine: Machine, _ found: DeviceContent) throws {
        var content = found
        try powerCut.flush(machine, content, "after a kill")
        try powerCut.write(machine, &content, "after a kill")
        let session = levels[1].session
        machine.session?.catchUp()
        if let left = machine.session { session.inherit(from: left) }
        try machine.takeDown()
        let next = self.machine(on: machine.disk, over: machine.sealed, session)
        try powerCut.open(next, "what a second kill has left")
        try powerCut.readBack(next, content, "after a second kill")
        try powerCut.flush(next, content, "after a second kill")
        try powerCut.close(next, content, "after a second kill")
    }
}
