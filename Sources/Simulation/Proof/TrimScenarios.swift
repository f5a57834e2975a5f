import QEDEngine

/// Requests that meet a trim.
extension Scenarios {
    /// A request that needs an entry changed comes while a trim marks the image as clean; the process is killed at every
    /// moment after that. The log that it leaves must be believed.
    /// - Parameter step: of the trim, at which the request comes.
    /// - Returns: whether the trim takes so many steps.
    public static func request(
        _ request: PlayedRequest, besideATrimAtStep step: Int, seed: UInt64, base: Scene.Base
    ) throws -> Bool {
        let scene = Scene(clusterSizeBytes: 4096, imageSizeBytes: 4096 * 24, base: base)
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        let kills = KillCheck(powerCut: check, logCapacity: 64, seed: seed)
        kills.readInterval = 1
        let windows = [0..<(24 * 8)]
        let machine = Machine(
            disk: try scene.makeDisk(), backing: backing, options: Machine.Options(), seed: seed,
            session: kills.makeSession())
        try check.open(machine, "a new image")
        machine.session?.catchUp()
        let player = Player(
            machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: 8, largestSectors: 64)
        for before in [PlayedRequest(.write, 0..<3), PlayedRequest(.flush)] {
            player.start(before)
            try player.drain { _ in }
        }
        // The image is idle from the first tick on, and trimmed after the third.
        for _ in 0..<2 {
            machine.tick(milliseconds: 4_000)
            try machine.settle()
        }
        machine.tick(milliseconds: 4_000)
        for _ in 0..<step {
            if machine.step() != nil { continue }
            let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
            if walk.needCheck { throw Violation("there was no trim, so this proves nothing") }
            return false
        }
        func kill() throws {
            try kills.killBetweenStores(machine, player.history, windows)
            try kills.kill(machine, player.history, windows, samples: 2)
        }
        machine.session?.catchUp()
        player.start(request)
        try player.drain {
            try kill()
        } afterStep: { _ in
            try kill()
        }
        try kill()
        try machine.settle { _ in try kill() }
        try check.cutPower(machine, player.history, windows, limit: 8, samples: 8)
        if let error = try machine.close() { throw Violation("closing fails: \(error)") }
        let history = player.history
        try check.checkClosed(
            machine.disk, windows, allows: { history.mayRead($0, $1, start: history.now) },
            explain: { history.explain($0) })
        return true
    }

    /// Every kind of request at every step of a trim.
    /// - Returns: how many steps were looked at.
    public static func requestsBesideATrim(seed: UInt64, base: Scene.Base) throws -> Int {
        var steps = 0
        for request in [
            PlayedRequest(.writeZeroes, 16..<24), PlayedRequest(.writeZeroes, 18..<20), PlayedRequest(.write, 16..<24),
            PlayedRequest(.write, 17..<19), PlayedRequest(.write, 1..<2), PlayedRequest(.discard, 0..<24), PlayedRequest(.flush),
            PlayedRequest(.writeZeroes, 16..<24, fua: true),
        ] {
            var step = 0
            do {
                while try self.request(request, besideATrimAtStep: step, seed: seed, base: base) { step += 1 }
            } catch {
                throw Violation("\(request) at step \(step) of a trim, base \(base), seed \(seed): \(error)")
            }
            steps += step
        }
        return steps
    }
}
