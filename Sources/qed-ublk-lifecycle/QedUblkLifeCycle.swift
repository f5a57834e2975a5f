import ArgumentParser
import Glibc

/// Random commands, kills, replaced files and wiped directories on real devices, and the proof that what was acknowledged is
/// there, or that the program says why not.
@main
struct QedUblkLifeCycle: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "qed-ublk-lifecycle",
        abstract: "Test what becomes of devices, images and servers. Kills servers, and uses /dev/ram0 and /dev/ram1.",
        discussion: """
            For a virtual machine. Each round is chosen by its own seed, beginning with --seed. After each step what there is, \
            in the kernel and in the images, must be what a model says. A failure prints the steps of its round, \
            and the seed that repeats it.
            """)

    @Option(help: "Of the first round.") var seed: UInt64 = 1
    @Option(help: "How many rounds.") var rounds = 1
    @Option(help: "Steps of each.") var steps = 40
    @Option(help: "Begin no other round after so many seconds; 0 for no limit.") var seconds = 0
    @Option(help: "The file system of the images: ext4 or btrfs. (default: by the seed, btrfs where it is installed)")
    var store: String?
    @Option(help: "Leave out steps whose descriptions contain this; can be given several times.") var without: [String] = []
    @Option(help: "The program.") var program = "qed-ublk"
    @Flag(help: "Print each step, and what it said.") var log = false
    @Flag(help: "Go on with the next round after one that fails, if what it left can be removed.") var keepGoing = false

    func run() throws {
        let start = ContinuousClock.now
        var played = 0
        var failed: [UInt64] = []
        for round in 0..<UInt64(rounds) {
            if seconds > 0, played > 0, ContinuousClock.now - start >= .seconds(seconds) { break }
            if try !play(seed: seed + round) { failed.append(seed + round) }
            played += 1
        }
        guard failed.isEmpty else {
            print("\(played) rounds, of which failed those of seeds \(failed)")
            throw ExitCode(1)
        }
        print("\(played) rounds of \(steps) steps, from seed \(seed): all as the model says")
    }

    /// - Returns: whether all was right.
    private func play(seed: UInt64) throws -> Bool {
        let hasBtrfs = ["/usr/bin", "/usr/sbin", "/sbin"].contains { access("\($0)/mkfs.btrfs", X_OK) == 0 }
        let kind = store ?? (hasBtrfs && seed % 2 == 1 ? "btrfs" : "ext4")
        var player = Player(seed: seed, program: program, storeKind: kind, without: without, keepsLog: log)
        if log { print("seed \(seed), images on \(kind)") }
        var number = 0
        do throws(Breach) {
            try player.begin()
            while number < steps {
                number += 1
                try player.play(number)
            }
            try player.end()
        } catch {
            if !log { for line in player.history { print(line) } }
            print(Kernel.explanation(), terminator: "")
            print("seed \(seed), step \(number), images on \(kind): \(error)")
            let leftOut = without.map { " --without '\($0)'" }.joined()
            print("again with: qed-ublk-lifecycle --seed \(seed) --steps \(steps) --store \(kind)\(leftOut)")
            guard keepGoing, player.cleanUp() else { throw ExitCode(1) }
            return false
        }
        guard player.cleanUp() else {
            print("seed \(seed): what is left cannot be removed")
            throw ExitCode(1)
        }
        return true
    }
}
