import QEDEngine

/// Every sequence of up to three steps on a new image, with the power cut after each operation of the last step.
///
/// Nearly all crash bugs of file systems needed no more than three operations on a small, fresh disk to show. A step is
/// one request, or two at once.
public struct ExhaustiveSequences {
    public struct Report: Sendable {
        public var sequences = 0
        public var states = 0
    }

    public let scene: Scene
    let steps: [[PlayedRequest]]
    let windows: [Range<Int>]

    public static let scenes: [Scene] = [4096, 65536].flatMap { clusterSizeBytes in
        Scene.Base.allCases.map {
            Scene(clusterSizeBytes: UInt64(clusterSizeBytes), imageSizeBytes: UInt64(clusterSizeBytes) * 8, base: $0)
        }
    }

    public init(scene: Scene) {
        self.scene = scene
        // The window covers the short backing file's end in its middle.
        let cluster = Int(scene.clusterSizeBytes / 512)
        let first = scene.base == .short ? 4 * cluster : 0
        let second = first + cluster
        windows = [first..<(first + 3 * cluster)]
        let whole = first..<(first + cluster)
        steps = [
            [PlayedRequest(.write, first..<(first + 1))],
            [PlayedRequest(.write, (first + 3)..<(first + 6))],
            [PlayedRequest(.write, (second - 2)..<(second + 2))],
            [PlayedRequest(.write, whole)],
            [PlayedRequest(.write, (first + 1)..<(second + cluster))],
            [PlayedRequest(.write, (first + 1)..<(first + 2)), PlayedRequest(.write, (first + 2)..<(first + 4))],
            [PlayedRequest(.write, (first + 2)..<(first + 4)), PlayedRequest(.write, (second + 2)..<(second + 3))],
            [PlayedRequest(.writeZeroes, (first + 2)..<(first + 5))],
            [PlayedRequest(.writeZeroes, whole)],
            [PlayedRequest(.writeZeroes, (second - 3)..<(second + cluster), keepsSpace: true)],
            [PlayedRequest(.discard, first..<(second + 1))],
            [PlayedRequest(.flush)],
            [PlayedRequest(.write, (first + 4)..<(first + 5), fua: true)],
            [PlayedRequest(.flush), PlayedRequest(.write, (first + 3)..<(first + 4))],
            [PlayedRequest(.write, (first + 5)..<(first + 7)), PlayedRequest(.read, first..<(second + 2))],
            [PlayedRequest(.flush), PlayedRequest(.writeZeroes, whole, fua: true)],
        ]
    }

    /// Plays all sequences of `length` steps, or those that begin with one step.
    /// - Parameters:
    ///   - limit: combinations of what survives that are all taken; of more, `samples`.
    public func run(
        length: Int, firstStep: Int? = nil, seed: UInt64 = 1, limit: Int = 16, samples: Int = 6
    ) throws -> Report {
        var report = Report()
        let backing = try scene.makeBacking()
        let check = CrashCheck(scene: scene, backing: backing, seed: seed)
        try forEach(length: length, firstStep: firstStep) { indexes, number in
            try play(indexes, backing, check, seed: seed &+ UInt64(number), limit: limit, samples: samples)
            report.sequences += 1
        }
        report.states = check.states
        return report
    }

    /// - Parameter body: gets the indexes of the steps, and the sequence's number.
    func forEach(length: Int, firstStep: Int? = nil, _ body: ([Int], Int) throws -> Void) throws {
        var total = 1
        for _ in 0..<length { total *= steps.count }
        for number in 0..<total {
            var indexes: [Int] = []
            var rest = number
            for _ in 0..<length {
                indexes.append(rest % steps.count)
                rest /= steps.count
            }
            if let firstStep, indexes[0] != firstStep { continue }
            do {
                try body(indexes, number)
            } catch {
                let names = indexes.map { "\(steps[$0])" }.joined(separator: ", then ")
                throw Violation("\(scene), sequence \(number), \(names): \(error)")
            }
        }
    }

    private func play(
        _ indexes: [Int], _ backing: [Machine.BackingFile], _ check: CrashCheck, seed: UInt64, limit: Int, samples: Int
    ) throws {
        let scene = self.scene
        let machine = Machine(disk: try scene.makeDisk(), backing: backing, options: Machine.Options(), seed: seed)
        try check.open(machine, "a new image")
        let player = Player(
            machine: machine, history: SectorHistory(sizeBytes: scene.imageSizeBytes) { scene.initialValue($0) },
            depth: 8, largestSectors: 3 * Int(scene.clusterSizeBytes / 512))
        for (position, index) in indexes.enumerated() {
            for request in steps[index] { player.start(request) }
            let isLast = position == indexes.count - 1
            try player.drain { completed in
                // Shorter sequences have looked at what comes before the last step.
                guard completed && isLast else { return }
                try player.poll()
                try check.cutPower(machine, player.history, windows, limit: limit, samples: samples)
            }
        }
        try check.cutPower(machine, player.history, windows, limit: limit, samples: samples)
        let checksClose = indexes.count < 3 || seed % 8 == 0
        let error = try machine.close { completed in
            guard completed && checksClose else { return }
            try check.cutPower(machine, player.history, windows, limit: limit, samples: samples)
        }
        if let error { throw Violation("closing fails: \(error)") }
        if checksClose {
            let history = player.history
            try check.checkClosed(
                machine.disk, windows, allows: { history.mayRead($0, $1, start: history.now) },
                explain: { history.explain($0) })
        }
    }
}
