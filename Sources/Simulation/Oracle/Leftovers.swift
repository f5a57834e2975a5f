import BlockStorage

/// The disks that a process may leave that is killed at this moment: everything that has completed is there, and of
/// each operation in flight all, nothing, or a part.
///
/// What is not durable yet is not durable afterwards either: a power cut may follow.
struct Leftovers {
    private let disk: SimulatedDisk
    private let operations: [SimulatedIO.Operation]
    /// So many operations are combined in every way, as far as each is done or not.
    private static let combinedCount = 2

    init(of disk: SimulatedDisk, inFlight: [SimulatedIO.Operation]) {
        self.disk = disk
        operations = inFlight.filter { $0.disk === disk && $0.changesDisk }
    }

    private enum Share { case nothing, all, part }

    /// Makes leftovers on `target`, one after the other.
    /// - Parameters:
    ///   - samples: taken besides the combinations, where anything is in flight.
    ///   - body: checks the disk; it may change `target` as it likes.
    func forEach(
        on target: SimulatedDisk, samples: Int, random: inout SeededRandom, _ body: () throws -> Void
    ) rethrows {
        let combinations = operations.count <= Leftovers.combinedCount ? 1 << operations.count : 2
        for mask in 0..<combinations {
            target.beginLeftover(of: disk)
            for (index, operation) in operations.enumerated() {
                let isDone = operations.count <= Leftovers.combinedCount ? mask >> index & 1 != 0 : mask == 1
                if isDone { _ = operation.perform(on: target, limit: Int.max) }
            }
            try body()
        }
        guard !operations.isEmpty else { return }
        for _ in 0..<samples {
            makeSample(on: target, &random)
            try body()
        }
    }

    /// One of them, by chance.
    func makeSample(on target: SimulatedDisk, _ random: inout SeededRandom) {
        target.beginLeftover(of: disk)
        for operation in operations.shuffled(using: &random) {
            switch random.pick([.nothing, .all, .part] as [Share]) {
            case .nothing: continue
            case .all: _ = operation.perform(on: target, limit: Int.max)
            case .part: operation.performPart(on: target, &random)
            }
        }
    }
}

extension SimulatedIO.Operation {
    fileprivate var changesDisk: Bool {
        switch kind {
        case .storage(.read), .syncNames, .pause: false
        default: true
        }
    }

    /// Does a part: each sector of a transfer happens or not.
    fileprivate func performPart(on target: SimulatedDisk, _ random: inout SeededRandom) {
        let sectorBytes = SparsePages.sectorBytes
        func forEachSector(_ byteCount: Int, _ body: (Int) -> Void) {
            for position in stride(from: 0, to: byteCount, by: sectorBytes) where random.chance(1, in: 2) {
                body(position)
            }
        }
        switch kind {
        case .storage(.write(let buffer, let byteCount, let fileOffset)):
            forEachSector(Int(byteCount)) {
                target.write(buffer + $0, byteCount: sectorBytes, at: fileOffset + UInt64($0))
            }
        case .storage(.writeGathered(let vectors, let count, let fileOffset)):
            var start = fileOffset
            for index in 0..<Int(count) {
                guard let base = vectors[index].base else { continue }
                forEachSector(vectors[index].byteCount) {
                    target.write(base + $0, byteCount: sectorBytes, at: start + UInt64($0))
                }
                start += UInt64(vectors[index].byteCount)
            }
        case .storage(.punchHole(let fileOffset, let byteCount)), .storage(.zeroRange(let fileOffset, let byteCount)):
            forEachSector(Int(byteCount)) { target.zero(byteCount: UInt64(sectorBytes), at: fileOffset + UInt64($0)) }
        case .storage(.allocate(let fileOffset, let byteCount, _)):
            target.setLengthAtLeast(fileOffset + byteCount / 2 / 4096 * 4096)
        case .storage(.read), .storage(.sync), .setLength, .syncNames, .pause: break
        }
    }
}
