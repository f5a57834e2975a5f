import ArgumentParser
import Glibc
import QEDEngine
import Simulation

/// Runs the engine on simulated disks that lose power, in processes that die, and says how many disks were looked at.
@main
struct QedUblkSim: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk-sim",
        abstract: "Prove the engine by simulation: random histories, power cuts and kills at every point, failing disks.")

    @Option(help: "First seed. With --histories 1 this repeats one history.")
    var seed: UInt64 = 1

    @Option(help: "Stop after this many histories.")
    var histories: Int = .max

    @Option(help: "Stop after this many crash states.")
    var states: Int = .max

    @Option(help: "Stop after this many seconds.")
    var seconds: Int = 10

    @Option(help: "Stop after this many violations.")
    var failuresToStop = 10

    @Flag(help: "Print what happened before a violation.")
    var log = false

    @Option(help: "What to run: random, exhaustive, kill, kill-sequences, faults, scenarios, sabotage.")
    var proof: Proof = .random

    @Option(help: "A fault to plant in the engine; builds with QED_SABOTAGE=1 have them.")
    var sabotage: String?

    enum Proof: String, ExpressibleByArgument, CaseIterable {
        case random, exhaustive, kill
        case killSequences = "kill-sequences"
        case faults, scenarios, sabotage
    }

    func run() throws {
        try plantSabotage()
        let start = ContinuousClock.now
        let states =
            switch proof {
            case .random: try playHistories(.powerCut)
            case .exhaustive: try playSequences()
            case .kill: try playHistories(.kill)
            case .killSequences: try playKillSequences()
            case .faults: try playFaults()
            case .scenarios: try playScenarios()
            case .sabotage: try findSabotage()
            }
        let elapsed = ContinuousClock.now - start
        let duration = Double(elapsed.components.seconds) + Double(elapsed.components.attoseconds) * 1e-18
        print("\(states) crash states in \(Int(duration)) s: \(Int(Double(states) / max(duration, 0.001))) states/s")
    }

    private func plantSabotage() throws {
        #if QED_SABOTAGE
        Sabotage.active = try plantedFault()
        #else
        if let sabotage {
            throw ValidationError("\(sabotage): this program was built without QED_SABOTAGE=1 in the environment")
        }
        #endif
    }

    private func plantedFault() throws -> Sabotage? {
        guard let sabotage else { return nil }
        guard let fault = Sabotage(rawValue: sabotage) else {
            throw ValidationError("no such fault: \(sabotage); there are \(Sabotage.allCases.map(\.rawValue))")
        }
        return fault
    }

    /// - Returns: the crash states that were looked at.
    private func playHistories(_ model: CrashModel) throws -> Int {
        let start = ContinuousClock.now
        var checked = 0
        var played = 0
        var failures = 0
        while played < histories, checked < states, ContinuousClock.now - start < .seconds(seconds) {
            let current = seed &+ UInt64(played)
            var history = RandomHistory(seed: current, model: model)
            CurrentSeed.note(current)
            CurrentSeed.startTimer()
            do {
                checked += try history.run(keepsLog: log).states
            } catch {
                print("seed \(current) (\(history.scene)): \(error)")
                fflush(nil)
                failures += 1
                if failures >= failuresToStop { break }
            }
            played += 1
        }
        print("\(played) histories")
        if failures > 0 { throw ExitCode(1) }
        return checked
    }

    private func playSequences() throws -> Int {
        var checked = 0
        for scene in ExhaustiveSequences.scenes {
            CurrentSeed.note(seed)
            for length in 1...3 {
                let report = try ExhaustiveSequences(scene: scene).run(
                    length: length, seed: seed, limit: 128, samples: 32)
                checked += report.states
                print("\(scene): \(report.sequences) sequences of \(length), \(report.states) crash states")
                fflush(nil)
            }
        }
        return checked
    }

    private func playKillSequences() throws -> Int {
        var checked = 0
        for scene in ExhaustiveSequences.scenes {
            CurrentSeed.note(seed)
            for length in 1...3 {
                // Of those of three a part: another with each seed.
                let report = try KillSequences(scene: scene).run(length: length, seed: seed, oneIn: length < 3 ? 1 : 64)
                checked += report.states
                print("\(scene): \(report.sequences) sequences of \(length), \(report.states) crash states")
                fflush(nil)
            }
        }
        return checked
    }

    /// Every planted fault must be found within a minute.
    private func findSabotage() throws -> Int {
        #if QED_SABOTAGE
        var missed = 0
        let faults = try plantedFault().map { [$0] } ?? Sabotage.allCases.filter { !Sabotage.hostile.contains($0) }
        for fault in faults {
            CurrentSeed.note(seed)
            if let finding = SabotageProof.find(fault, seedCount: 100) {
                print("\(fault): found in \(finding.duration), \(finding.proof): \(finding.violation.prefix(120))")
            } else {
                print("\(fault): NOT FOUND")
                missed += 1
            }
            fflush(nil)
        }
        print("\(faults.count - missed) of \(faults.count) planted faults found")
        if missed > 0 { throw ExitCode(1) }
        return 0
        #else
        throw ValidationError("this program was built without QED_SABOTAGE=1 in the environment")
        #endif
    }

    private func playScenarios() throws -> Int {
        for base in [Scene.Base.none, .raw] {
            for operation in [BlockOperation.read, .write, .writeZeroes] {
                CurrentSeed.note(seed)
                CurrentSeed.startTimer()
                try Scenarios.morePagesWantedThanTheCacheHolds(seed: seed, operation: operation, base: base)
                print("more pages wanted than the cache holds, \(operation), base \(base)")
            }
        }
        for base in Scene.Base.allCases {
            CurrentSeed.startTimer()
            print("requests at \(try Scenarios.requestsBesideATrim(seed: seed, base: base)) steps of trims, base \(base)")
        }
        CurrentSeed.startTimer()
        print("requests at \(try Scenarios.requestsBesideAKeptRead(seed: seed)) steps of reads that are kept")
        for base in [Scene.Base.none, .qed] {
            CurrentSeed.startTimer()
            try Scenarios.pagesThatCannotBeWritten(seed: seed, base: base)
            print("pages that cannot be written, base \(base)")
        }
        CurrentSeed.startTimer()
        try Scenarios.commitThatFailsWithTheLogFull(seed: seed)
        print("a commit that fails with the log full")
        CurrentSeed.stopTimer()
        let report = try RepairProof().run(seeds: seed...(seed &+ 199))
        print("\(report.images) damaged images, \(report.states) crash states while they were repaired")
        let growth = try GrowthProof().run(seeds: seed...(seed &+ 199))
        print("\(growth.disks) disks that grow, \(growth.states) crash states meanwhile")
        let flattened = try FlattenProof().run(seeds: seed...(seed &+ 99))
        print(
            "\(flattened.images) images that are flattened under \(flattened.requests) requests, \(flattened.crashes) twice, "
                + "\(flattened.states) crash states meanwhile")
        let kept = try KeptLimitProof().run(seeds: seed...(seed &+ 39))
        print(
            "\(kept.reads) reads that are kept, and let go \(kept.forgotten) times, \(kept.crashes) crashes, "
                + "\(kept.states) crash states meanwhile")
        return report.states + growth.states + flattened.states + kept.states
    }

    private func playFaults() throws -> Int {
        var checked = 0
        var failures = 0
        for scene in ExhaustiveSequences.scenes {
            CurrentSeed.note(seed)
            do {
                let report = try FaultLoop(scene: scene, seed: seed).run()
                checked += report.states
                print("\(scene): \(report.faults) faults, \(report.states) crash states")
            } catch {
                print("\(error)")
                failures += 1
            }
            fflush(nil)
        }
        if failures > 0 { throw ExitCode(1) }
        return checked
    }
}

/// Says which seed was played when the engine itself stopped the program, or went on for ever without a step.
enum CurrentSeed {
    // SAFETY: written by the only thread, read by a signal handler on it.
    nonisolated(unsafe) private static var text: [CChar] = []
    /// No history takes this much of the processor; the clock would accuse a machine that is busy otherwise.
    private static let deadlineSeconds = 60

    static func note(_ seed: UInt64) {
        text = Array("the engine stopped, or went on for ever, in seed \(seed)\n".utf8CString)
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGABRT, SIGPROF] {
            signal(number) { number in
                CurrentSeed.text.withUnsafeBufferPointer { _ = write(2, $0.baseAddress, $0.count - 1) }
                signal(number, SIG_DFL)
                raise(number)
            }
        }
    }

    static func startTimer() { setTimer(seconds: deadlineSeconds) }

    static func stopTimer() { setTimer(seconds: 0) }

    private static func setTimer(seconds: Int) {
        var timer = itimerval()
        timer.it_value.tv_sec = seconds
        setitimer(__itimer_which_t(ITIMER_PROF.rawValue), &timer, nil)
    }
}
