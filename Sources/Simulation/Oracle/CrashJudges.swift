/// Those who judge what a power cut leaves of what a player plays, and, in the histories that have kills, what a kill does.
struct CrashJudges {
    let check: CrashCheck
    let kills: KillCheck?
    /// Of sectors of the device: those that are looked at.
    let windows: [Range<Int>]

    /// - Parameter random: says whether the process is killed too, and how much its log holds.
    init(
        of scene: Scene, _ backing: [Machine.BackingFile], _ windows: [Range<Int>], seed: UInt64, _ random: inout SeededRandom
    ) {
        check = CrashCheck(scene: scene, backing: backing, seed: seed)
        kills =
            random.chance(1, in: 2) ? KillCheck(powerCut: check, logCapacity: random.pick([16, 64]), seed: seed) : nil
        self.windows = windows
    }

    var states: Int { check.states + (kills?.states ?? 0) }

    /// Before the disk does anything more: a store to the log comes before what it makes true.
    func killBetweenStores(_ player: Player) throws {
        try kills?.killBetweenStores(player.machine, player.history, windows)
    }

    /// Cuts the power, and kills the process, at this moment.
    func look(_ player: Player, samples: Int) throws {
        let machine = player.machine
        try check.cutPower(machine, player.history, windows, limit: 8, samples: samples)
        guard let kills, kills.mayKill(machine) else { return }
        try kills.kill(machine, player.history, windows, samples: 1)
    }

    /// All requests are answered.
    func drain(_ player: Player) throws {
        try killBetweenStores(player)
        try player.drain {
            try killBetweenStores(player)
        } afterStep: { _ in
            try killBetweenStores(player)
        }
    }
}
