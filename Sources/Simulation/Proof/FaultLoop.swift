import QEDEngine
import SystemPackage

/// One operation of the disk fails, every one in turn: while the image is opened (and repaired, or a dead process's log
/// replayed), in each request, in the work of idle times, while it is closed.
///
/// The request that met the fault is answered with its errno, no request is left without an answer, the image stays
/// sound, and when the fault is gone everything works again, unless a sync has failed: then nothing is ever flushed.
public struct FaultLoop {
    public struct Report: Sendable {
        /// Runs with a fault that struck.
        public var faults = 0
        public var states = 0
    }

    let scene: Scene
    let seed: UInt64
    private let clusterSectors: Int
    private let sectors: Int

    public init(scene: Scene, seed: UInt64) {
        self.scene = scene
        self.seed = seed
        clusterSectors = Int(scene.clusterSizeBytes / 512)
        sectors = Int(scene.imageSizeBytes / 512)
    }

    public static let effects: [Fault.Effect] = [
        .error(.ioError), .error(.noSpace), .error(.interrupted), .error(.resourceTemporarilyUnavailable), .short,
    ]

    private enum Pace: CaseIterable {
        case oneByOne, atOnce
        /// One by one; then nothing is asked for a while: the background commit, and the trim.
        case thenIdle
    }

    /// On a new image.
    private var scripts: [[PlayedRequest]] {
        let cluster = clusterSectors
        return [
            [PlayedRequest(.write, 1..<3), PlayedRequest(.flush), PlayedRequest(.read, 0..<cluster)],
            [PlayedRequest(.write, 0..<(2 * cluster)), PlayedRequest(.write, 4..<7, fua: true)],
            [
                PlayedRequest(.write, (cluster - 2)..<(cluster + 2)),
                PlayedRequest(.write, (2 * cluster + 1)..<(2 * cluster + 2)),
                PlayedRequest(.write, (2 * cluster + 3)..<(2 * cluster + 5)), PlayedRequest(.flush),
            ],
            [
                PlayedRequest(.write, 0..<cluster), PlayedRequest(.flush), PlayedRequest(.writeZeroes, 2..<4),
                PlayedRequest(.writeZeroes, 0..<(3 * cluster), keepsSpace: true), PlayedRequest(.discard, 0..<cluster),
                PlayedRequest(.flush),
            ],
            [
                PlayedRequest(.write, (sectors - 3)..<sectors), PlayedRequest(.read, (sectors - cluster)..<sectors),
                PlayedRequest(.writeZeroes, (sectors - cluster)..<sectors, fua: true),
            ],
        ]
    }

    /// On an image that has something behind it.
    private var shortScript: [PlayedRequest] {
        [PlayedRequest(.write, 0..<2), PlayedRequest(.read, 0..<(2 * clusterSectors)), PlayedRequest(.flush)]
    }

    public func run() throws -> Report {
        var report = Report()
        let backing = try scene.makeBacking()
        for kind in Beginning.Kind.allCases {
            let beginning = try Beginning(kind, scene: scene, backing: backing, seed: seed)
            for (index, script) in (kind == .newImage ? scripts : [shortScript]).enumerated() {
                for pace in Pace.allCases where kind == .newImage || pace == .oneByOne {
                    for effect in FaultLoop.effects {
                        do {
                            try run(beginning, backing, script, pace, effect, &report)
                        } catch {
                            throw Violation("\(scene), seed \(seed), \(kind), script \(index), \(pace): \(error)")
                        }
                    }
                }
            }
        }
        return report
    }

    private func run(
        _ beginning: Beginning, _ backing: [Machine.BackingFile], _ script: [PlayedRequest], _ pace: Pace,
        _ effect: Fault.Effect, _ report: inout Report
    ) throws {
        for isPersistent in [false, true] {
            var operation = 0
            while true {
                let fault = Fault(effect, operation: operation, isPersistent: isPersistent)
                do {
                    guard try play(beginning, backing, script, pace, fault, &report) else { break }
                } catch {
                    throw Violation("\(fault): \(error)")
                }
                report.faults += 1
                operation += 1
            }
        }
    }

    private var window: [Range<Int>] { [0..<min(4 * clusterSectors, sectors), (sectors - clusterSectors)..<sectors] }

    private func allowedErrors(_ fault: Fault) -> Set<Int32> {
        switch fault.effect {
        case .short: []
        // What is interrupted for ever is given up.
        case .error where fault.effect.doesNothing: fault.isPersistent ? [Errno.ioError.rawValue] : []
        // After a failed sync every later request is answered with EIO.
        case .error(let errno): [errno.rawValue, Errno.ioError.rawValue]
        }
    }

    /// - Returns: whether the fault struck.
    private func play(
        _ beginning: Beginning, _ backing: [Machine.BackingFile], _ script: [PlayedRequest], _ pace: Pace,
        _ fault: Fault, _ report: inout Report
    ) throws -> Bool {
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        check.openInterval = 3
        defer { report.states += check.states }
        var options = Machine.Options()
        options.alignmentBytes = 512
        let machine = beginning.machine(backing: backing, options: options, seed: seed)
        machine.fault = fault
        if let refusal = try machine.open() {
            guard machine.faultCount > 0, case .error = fault.effect else { throw Violation("refused: \(refusal)") }
            try machine.settle()
            try openAgain(machine, beginning, check, backing, after: fault)
            return true
        }
        if let reason = machine.image?.replayRefusal { throw Violation("the log is refused: \(reason)") }
        let player = Player(
            machine: machine, history: beginning.history, depth: options.depth, largestSectors: 4 * clusterSectors,
            firstNumber: 1_000)
        player.allowedErrors = allowedErrors(fault)
        for request in script {
            player.start(request)
            if pace != .atOnce { try player.drain { _ in } }
        }
        try player.drain { _ in }
        try machine.settle()
        if pace == .thenIdle { try idle(machine) }
        // Transient faults are met by the engine's own retries; an errno with no request to report it to would be a loss.
        if machine.faultCount == 0 {
            let error = try machine.close()
            guard machine.faultCount > 0 else {
                if let error { throw Violation("closing fails: \(error)") }
                return false
            }
            if error == nil {
                try verifyClosed(machine, player, check)
            } else {
                guard case .error = fault.effect, !fault.effect.doesNothing || fault.isPersistent else {
                    throw Violation("closing fails with \(String(describing: error)) for \(fault)")
                }
                try reopen(machine, player, check, backing, mayHaveLost: gaveUp(fault) || machine.io.failedSyncs > 0)
            }
            return true
        }
        try check.cutPower(machine, player.history, window, limit: 8, samples: 6)
        machine.fault = nil
        // A sync that was interrupted for ever counts as failed.
        if machine.io.failedSyncs > 0 || machine.image?.failedSync != nil {
            // O7: whatever is asked for now, nothing is promised.
            player.allowedErrors = [Errno.ioError.rawValue]
            player.start(PlayedRequest(.write, 0..<1, fua: true))
            player.start(PlayedRequest(.flush))
            let before = player.errorCount
            try player.drain { _ in }
            if player.errorCount != before + 2 { throw Violation("a request succeeds that must not after a failed sync") }
            if try machine.close() == nil { throw Violation("closing succeeds after a failed sync") }
            try reopen(machine, player, check, backing, mayHaveLost: true)
            return true
        }
        player.allowedErrors = []
        for request in script {
            player.start(request)
            try player.drain { _ in }
        }
        player.start(PlayedRequest(.flush))
        try player.drain { _ in }
        try check.cutPower(machine, player.history, window, limit: 8, samples: 4)
        if let error = try machine.close() { throw Violation("closing fails though the fault is gone: \(error)") }
        try verifyClosed(machine, player, check)
        return true
    }

    /// A sync that is interrupted for ever is given up, and counts as failed: nobody knows what it would have said. When the
    /// image is closed, or was refused, there is nothing to ask whether one was.
    private func gaveUp(_ fault: Fault) -> Bool { fault.effect.doesNothing && fault.isPersistent }

    /// Long enough for a commit, and for a trim after it.
    private func idle(_ machine: Machine) throws {
        for _ in 0..<4 {
            machine.tick(milliseconds: 6_000)
            try machine.settle()
        }
    }

    /// The image was refused because of the fault, which is gone now: everything is there, and the log still good, except
    /// for what a failed sync may have lost.
    private func openAgain(
        _ machine: Machine, _ beginning: Beginning, _ check: CrashCheck, _ backing: [Machine.BackingFile],
        after fault: Fault
    ) throws {
        machine.session?.catchUp()
        let next = Machine(
            disk: machine.disk, backing: backing, options: Machine.Options(), seed: seed, session: machine.session)
        let history = beginning.history
        guard beginning.kind == .damaged else {
            return try liveOn(next, history, check, afterFailedSync: gaveUp(fault) || machine.io.failedSyncs > 0)
        }
        try check.open(next, "after the fault the damaged image")
        let allows = { (sector: Int, value: UInt64) in history.mayRead(sector, value, start: history.now + 1) }
        try check.readBack(next, window, "after the fault", allows: allows, explain: { history.explain($0) })
        if let error = try next.close() { throw Violation("closing fails: \(error)") }
        try check.checkClosed(next.disk, window, allows: allows, explain: { history.explain($0) })
    }

    private func verifyClosed(_ machine: Machine, _ player: Player, _ check: CrashCheck) throws {
        let history = player.history
        try check.checkClosed(
            machine.disk, window, allows: { history.mayRead($0, $1, start: history.now) },
            explain: { history.explain($0) })
    }

    /// The process ends; another one opens the image: with the log, and without it, as when there is none, or the machine
    /// was started again. Then mappings that were only in memory are lost, as in a power cut.
    private func reopen(
        _ machine: Machine, _ player: Player, _ check: CrashCheck, _ backing: [Machine.BackingFile], mayHaveLost: Bool
    ) throws {
        let history = player.history
        try check.cutPower(machine, history, window, limit: 8, samples: 6)
        machine.session?.catchUp()
        let recovered = Machine(
            disk: machine.disk.clone(), backing: backing, options: Machine.Options(), seed: seed, session: machine.session)
        try liveOn(recovered, history, check, afterFailedSync: mayHaveLost)

        let next = Machine(disk: machine.disk, backing: backing, options: Machine.Options(), seed: seed)
        try check.open(next, "after the fault")
        try check.readBack(
            next, window, "after the fault", allows: { history.maySurvive($0, $1) },
            explain: { history.explain($0) })
        if let error = try next.close() { throw Violation("closing fails after the fault: \(error)") }
    }

    /// Opens the image with its log, writes into it and flushes; the power may fail at any time.
    private func liveOn(
        _ machine: Machine, _ before: SectorHistory, _ check: CrashCheck, afterFailedSync: Bool
    ) throws {
        func cutPower(_ history: SectorHistory) throws {
            try check.cutPower(machine, history, window, limit: 4, samples: 3)
        }
        try check.open(machine, "after the fault the image") { if $0 { try cutPower(before) } }
        try cutPower(before)
        var history = before
        let start = history.advance()
        history.processKilled()
        _ = history.advance()
        try check.readBack(machine, window, "after the fault") { sector, value in
            history.readAfterKill(sector, value, start: start, afterFailedSync: afterFailedSync)
        } explain: {
            before.explain($0)
        }
        let player = Player(
            machine: machine, history: history, depth: 8, largestSectors: 4 * clusterSectors, firstNumber: 2_000)
        // In place, where clusters were allocated before.
        for request in [
            PlayedRequest(.write, 1..<2), PlayedRequest(.write, (clusterSectors - 1)..<(clusterSectors + 1)),
            PlayedRequest(.write, (2 * clusterSectors + 4)..<(2 * clusterSectors + 5)), PlayedRequest(.flush),
        ] {
            player.start(request)
            try player.drain { _ in }
        }
        try cutPower(player.history)
        if let error = try machine.close() { throw Violation("closing fails after the fault: \(error)") }
        try verifyClosed(machine, player, check)
    }
}
