import QEDEngine
import SystemPackage

/// Situations that chance seldom makes, each set up on purpose.
public enum Scenarios {
    /// More requests at once than the cache has pages, each for a page of its own: every one is answered.
    public static func morePagesWantedThanTheCacheHolds(seed: UInt64, operation: BlockOperation, base: Scene.Base) throws {
        let pageCount = 40
        // A page of entries maps 2 MiB here.
        let pageSectors = (2 << 20) / 512
        let scene = Scene(
            clusterSizeBytes: 4096, imageSizeBytes: UInt64(pageCount * pageSectors * 512), base: base)
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        check.openInterval = 1
        let windows = (0..<pageCount).map { $0 * pageSectors..<($0 * pageSectors + 16) }
        var options = Machine.Options()
        options.depth = 64
        var machine = Machine(disk: try scene.makeDisk(), backing: backing, options: options, seed: seed)
        try check.open(machine, "a new image")
        let player = Player(
            machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: options.depth, largestSectors: 16)
        for window in windows { player.start(PlayedRequest(.write, window)) }
        try player.drain { _ in }
        if let error = try machine.close() { throw Violation("closing fails: \(error)") }
        machine = Machine(disk: machine.disk, backing: backing, options: options, seed: seed)
        try check.open(machine, "the closed image")
        player.goOn(with: machine)
        for window in windows {
            // Part of the next cluster, which is not allocated yet.
            player.start(PlayedRequest(operation, operation == .read ? window : window.upperBound..<(window.upperBound + 3)))
        }
        try player.drain { _ in }
        player.start(PlayedRequest(.flush))
        try player.drain { _ in }
        let history = player.history
        try check.cutPower(machine, history, windows, limit: 8, samples: 8)
        if let error = try machine.close() { throw Violation("closing fails: \(error)") }
        try check.checkClosed(
            machine.disk, windows, allows: { history.mayRead($0, $1, start: history.now) },
            explain: { history.explain($0) })
    }
}
