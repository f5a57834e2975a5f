import ArgumentParser
import CSupport
import Glibc
import RealDisk
import Simulation
import Synchronization

/// Overlapping reads, writes, zeroes, discards and flushes from several processors on a real disk, and the proof that what
/// the reads returned makes sense.
@main
struct QedUblkLinearize: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk-linearize",
        abstract: "Test that the reads and writes of a disk are linearizable. Overwrites the disk.",
        discussion: """
            Round after round the threads work on one small range, chosen anew, and meet at its end; then the reads are \
            judged. In the end, or after SIGTERM, all ranges are read once more. While the disk's server may be \
            killed the program has to know: SIGUSR1 before, SIGUSR2 after the next one serves.
            """)

    @Argument(help: "The disk.") var device: String
    @Option(help: "How long.") var seconds = 5
    @Option(help: "Threads; the processors get them in turn.") var threads = 12
    @Option(help: "Operations of each thread in a round.") var operations = 40
    @Option(help: "KiB of the range, up to 32768.") var range = 256
    @Option(help: "Of the operations.") var seed: UInt64 = 1
    @Flag(help: "Refuse histories in which a write was done twice before it was answered.") var strict = false
    @Option(help: "Commit a fault, which must be noticed: lost-writes or stale-reads.") var inject: String?

    func validate() throws {
        guard (4...32_768).contains(range), range % 4 == 0 else {
            throw ValidationError("--range must be a multiple of 4 between 4 and 32768")
        }
        guard inject == nil || injectedFault != nil else { throw ValidationError("--inject: no such fault") }
    }

    private var injectedFault: InjectedFault? { inject.flatMap(InjectedFault.init) }

    func run() throws {
        signal(SIGUSR1) { _ in KillWindow.open() }
        signal(SIGUSR2) { _ in KillWindow.close() }
        signal(SIGTERM) { _ in LastRound.isAskedFor.store(true, ordering: .relaxed) }
        var test = LinearizabilityTest(
            device: try BlockDevice(path: device), sectorCount: range * 2, threads: threads, operations: operations,
            fault: injectedFault, isStrict: strict, random: SeededRandom(seed: seed))
        let end = ContinuousClock.now + .seconds(seconds)
        do throws(LinearizabilityViolation) {
            repeat { try test.playRound() } while ContinuousClock.now < end && !LastRound.isAskedFor.load(ordering: .relaxed)
            try test.readAllAgain()
        } catch {
            print("seed \(seed): \(error.text)")
            throw ExitCode(1)
        }
        print(test.summary)
    }
}

/// SIGTERM: the round that is being played is the last.
enum LastRound {
    static let isAskedFor = Atomic<Bool>(false)
}

struct LinearizabilityViolation: Error {
    let text: String
}

/// Rounds of operations on a disk.
struct LinearizabilityTest {
    let device: BlockDevice
    /// Of a range.
    let sectorCount: Int
    let threads: Int
    let operations: Int
    let fault: InjectedFault?
    var random: SeededRandom
    private let clock = EventClock()
    private var check = HistoryCheck()
    /// What each range that was used has held at the end of its last round; by its number.
    private var settled: [Int: [UInt64]] = [:]
    private var rounds = 0
    private var counts: [Operation.Kind: Int] = [:]
    private var nextRequest = 1

    /// So that rounds come back to what others have left.
    private static let mostPlaces = 48
    /// Ranges begin and end within clusters.
    private static let shiftBytes = 20 << 10

    init(
        device: BlockDevice, sectorCount: Int, threads: Int, operations: Int, fault: InjectedFault?, isStrict: Bool,
        random: SeededRandom
    ) {
        check.isStrict = isStrict
        self.device = device
        self.sectorCount = sectorCount
        self.threads = threads
        self.operations = operations
        self.fault = fault
        self.random = random
    }

    private var places: Int {
        min((device.sizeBytes - Self.shiftBytes) / (sectorCount * 512), Self.mostPlaces)
    }

    private func offset(ofPlace place: Int) -> Int { Self.shiftBytes + place * sectorCount * 512 }

    mutating func playRound() throws(LinearizabilityViolation) {
        guard places > 0 else { throw LinearizabilityViolation(text: "the disk is smaller than the range") }
        let place = random.below(places)
        let initial = try read(place)
        try compare(place, initial)
        let round = Round(
            device: device, clock: clock, offset: offset(ofPlace: place), sectorCount: sectorCount, initial: initial,
            fault: fault)
        let processors = Int(cs_available_processors())
        var loads: [LoadThread] = []
        for number in 0..<threads {
            loads.append(
                LoadThread(
                    round, count: operations, firstRequest: nextRequest, processor: number % processors,
                    random: SeededRandom(seed: random.next())))
            nextRequest += operations
        }
        for load in loads { load.join() }
        var all = loads.flatMap(\.operations)
        for operation in all {
            counts[operation.kind, default: 0] += 1
            if operation.failure != 0 {
                let reason = String(cString: strerror(operation.failure))
                throw LinearizabilityViolation(text: "a \(operation.kind) failed: \(reason)")
            }
        }
        // What is there now is one more read.
        var last = Operation(kind: .read, sectors: 0..<sectorCount, request: 0, start: clock.tick())
        last.values = try read(place)
        last.end = clock.tick()
        all.append(last)
        if let violation = check.violation(in: all, initial: initial) {
            throw LinearizabilityViolation(text: "round \(rounds), byte \(round.offset): \(violation)")
        }
        settled[place] = last.values
        rounds += 1
    }

    /// What every round has left is still there.
    func readAllAgain() throws(LinearizabilityViolation) {
        for place in settled.keys.sorted() { try compare(place, try read(place)) }
    }

    private func compare(_ place: Int, _ values: [UInt64]) throws(LinearizabilityViolation) {
        guard let expected = settled[place],
            let sector = values.indices.first(where: { values[$0] != expected[$0] })
        else { return }
        throw LinearizabilityViolation(
            text: "byte \(offset(ofPlace: place) + sector * 512) was left as \(String(expected[sector], radix: 16)) and is "
                + "\(String(values[sector], radix: 16)) now, though nobody has written there")
    }

    private func read(_ place: Int) throws(LinearizabilityViolation) -> [UInt64] {
        let buffer = AlignedBuffer(byteCount: sectorCount * 512)
        let failure = device.read(buffer.address, offset: offset(ofPlace: place), byteCount: sectorCount * 512)
        guard failure == 0 else {
            throw LinearizabilityViolation(text: "a read failed: \(String(cString: strerror(failure)))")
        }
        return (0..<sectorCount).map { SectorValue.read(buffer.address + $0 * 512) }
    }

    var summary: String {
        let kinds = Operation.Kind.allCases.map { "\(counts[$0] ?? 0) \($0)" }.joined(separator: ", ")
        let reads = "\(check.sectorsRead) sectors read, \(check.tornSectors) of them in parts"
        return "\(rounds) rounds (\(kinds)), \(reads): linearizable"
    }
}
