import QEDEngine

/// Requests that meet a read whose clusters are kept.
extension Scenarios {
    /// A request comes while four clusters are read together, to be kept.
    /// - Parameter step: of the read, at which the request comes.
    /// - Returns: whether the read takes so many steps.
    public static func request(_ request: PlayedRequest, besideAKeptReadAtStep step: Int, seed: UInt64) throws -> Bool {
        let scene = Scene(clusterSizeBytes: 4096, imageSizeBytes: 4096 * 24, base: .raw)
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        let windows = [0..<(24 * 8)]
        var options = Machine.Options()
        options.keepsReads = true
        let machine = Machine(disk: try scene.makeDisk(), backing: backing, options: options, seed: seed)
        try check.open(machine, "a new image")
        let player = Player(
            machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: 8, largestSectors: 64)
        // Its table is in memory then.
        player.start(PlayedRequest(.write, 80..<81))
        try player.drain { _ in }
        player.start(PlayedRequest(.read, 0..<32))
        for _ in 0..<step where machine.step() == nil { return false }
        player.start(request)
        try player.drain { completed in
            if completed { try check.cutPower(machine, player.history, windows, limit: 2, samples: 1) }
        }
        player.start(PlayedRequest(.read, 0..<32))
        try player.drain { _ in }
        if let error = try machine.close() { throw Violation("closing fails: \(error)") }
        let history = player.history
        try check.checkClosed(
            machine.disk, windows, allows: { history.mayRead($0, $1, start: history.now) },
            explain: { history.explain($0) })
        return true
    }

    /// Every kind of request at every step of such a read.
    /// - Returns: how many steps were looked at.
    public static func requestsBesideAKeptRead(seed: UInt64) throws -> Int {
        var steps = 0
        for request in [
            PlayedRequest(.writeZeroes, 8..<16), PlayedRequest(.writeZeroes, 9..<31), PlayedRequest(.discard, 16..<24),
            PlayedRequest(.write, 8..<16), PlayedRequest(.write, 15..<17), PlayedRequest(.read, 4..<28),
            PlayedRequest(.writeZeroes, 0..<8), PlayedRequest(.write, 3..<4), PlayedRequest(.flush),
        ] {
            var step = 0
            do {
                while try self.request(request, besideAKeptReadAtStep: step, seed: seed) { step += 1 }
            } catch {
                throw Violation("\(request) at step \(step) of a read that is kept, seed \(seed): \(error)")
            }
            steps += step
        }
        return steps
    }
}
