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

    /// Pages cannot be written while two queues want more of them than the cache holds: whichever operation the disk begins
    /// to fail at, no change is lost when it works again.
    public static func pagesThatCannotBeWritten(seed: UInt64, base: Scene.Base) throws {
        let pageCount = 40
        let pageSectors = (2 << 20) / 512
        let scene = Scene(
            clusterSizeBytes: 4096, imageSizeBytes: UInt64(pageCount * pageSectors * 512), base: base)
        let backing = try scene.makeBacking()
        let windows = (0..<pageCount).map { $0 * pageSectors..<($0 * pageSectors + 16) }
        for operation in 0..<24 {
            let check = CrashCheck(scene: scene, backing: backing, seed: seed)
            var options = Machine.Options()
            options.queueCount = 2
            options.depth = 32
            let machine = Machine(
                disk: try scene.makeDisk(), backing: backing, options: options, seed: seed &+ UInt64(operation))
            try check.open(machine, "a new image")
            let player = Player(
                machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
                depth: options.depth, largestSectors: 16)
            for window in windows { player.start(PlayedRequest(.write, window.lowerBound..<(window.lowerBound + 8))) }
            player.start(PlayedRequest(.flush))
            try player.drain { _ in }
            // As many pages are changed as may be dirty at a time; the reads want the others.
            for window in windows.prefix(12) {
                player.start(PlayedRequest(.write, (window.lowerBound + 8)..<window.upperBound))
            }
            try player.drain { _ in }
            player.allowedErrors = [Errno.ioError.rawValue]
            machine.fault = Fault(
                .error(.ioError), operation: machine.completedOperations + operation, isPersistent: true)
            player.start(PlayedRequest(.flush))
            // One after the other, so that at every step of the commit somebody looks for a page.
            var next = 12
            try player.drain { _ in
                guard next < 120, player.hasFreeSlot else { return }
                player.start(PlayedRequest(.read, windows[12 + next % (pageCount - 12)]))
                next += 1
            }
            // Nothing is flushed any more after a sync that failed.
            if machine.io.failedSyncs > 0 {
                try machine.takeDown()
                continue
            }
            machine.fault = nil
            player.allowedErrors = []
            for window in windows { player.start(PlayedRequest(.read, window)) }
            try player.drain { _ in }
            player.start(PlayedRequest(.flush))
            try player.drain { _ in }
            let history = player.history
            try check.cutPower(machine, history, windows, limit: 4, samples: 2)
            if let error = try machine.close() { throw Violation("closing fails: \(error)") }
            try check.checkClosed(
                machine.disk, windows, allows: { history.mayRead($0, $1, start: history.now) },
                explain: { history.explain($0) })
        }
    }

    /// An operation of a commit fails when the mapping log is full: whichever it is, the writes that need records get an
    /// answer, and go well when the disk does.
    public static func commitThatFailsWithTheLogFull(seed: UInt64) throws {
        // Each of these is the first write to its table: two records of the six.
        let tableSectors = (4 << 20) / 512
        let windows = (0..<6).map { $0 * tableSectors..<($0 * tableSectors + 8) }
        let scene = Scene(clusterSizeBytes: 4096, imageSizeBytes: 24 << 20, base: .none)
        for number in 0..<96 {
            let (operation, flushes, isPersistent) = (number / 4, number % 2 == 0, number % 4 < 2)
            let check = CrashCheck(scene: scene, backing: [], seed: seed)
            let machine = Machine(
                disk: try scene.makeDisk(), backing: [], options: Machine.Options(), seed: seed &+ UInt64(operation),
                session: SimulatedSession(capacity: 6))
            try check.open(machine, "a new image")
            let player = Player(
                machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
                depth: 8, largestSectors: 8)
            player.start(PlayedRequest(.write, windows[0]))
            player.start(PlayedRequest(.flush))
            try player.drain { _ in }
            player.allowedErrors = [Errno.ioError.rawValue]
            machine.fault = Fault(
                .error(.ioError), operation: machine.completedOperations + operation, isPersistent: isPersistent)
            for window in windows[1..<4] { player.start(PlayedRequest(.write, window)) }
            try player.drain { _ in }
            if flushes {
                player.start(PlayedRequest(.flush))
                try player.drain { _ in }
            } else {
                // The commit that half a log asks for.
                try machine.settle()
            }
            machine.fault = nil
            player.start(PlayedRequest(.write, windows[4]))
            player.start(PlayedRequest(.write, windows[5]))
            try player.drain { _ in }
            if machine.io.failedSyncs == 0 {
                player.allowedErrors = []
                for window in windows { player.start(PlayedRequest(.write, window)) }
                player.start(PlayedRequest(.flush))
                try player.drain { _ in }
                if let error = try machine.close() { throw Violation("closing fails: \(error)") }
            } else {
                try machine.takeDown()
            }
        }
    }
}
