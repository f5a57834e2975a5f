import Glibc
import QEDEngine
import QEDFormat

/// Judges what a power cut leaves: its structure without any repair, its content as QEMU would read it, and then the
/// engine itself, which must open it, read the same, and serve it as if nothing had happened.
final class CrashCheck {
    let scene: Scene
    let backing: [Machine.BackingFile]
    private var random: SeededRandom
    private let survivor = SimulatedDisk()
    private let buffer: UnsafeMutableRawPointer
    private static let pieceBytes = 1 << 17
    /// Survivors that were checked.
    private(set) var states = 0
    /// Survivors on which the engine ran on as well.
    private(set) var deepStates = 0
    /// One in so many survivors gets a second life.
    var deepInterval = 16
    /// Sees every survivor, before the engine does: for samples that other programs judge.
    var observer: ((SimulatedDisk, SectorHistory) throws -> Void)?

    init(scene: Scene, backing: [Machine.BackingFile], seed: UInt64) {
        self.scene = scene
        self.backing = backing
        random = SeededRandom(seed: seed ^ 0xc4a5)
        buffer = .allocate(byteCount: CrashCheck.pieceBytes, alignment: 4096)
    }

    deinit { buffer.deallocate() }

    /// Cuts the power at this moment, in several ways.
    /// - Parameter ranges: of sectors of the device: those that are looked at.
    func cutPower(
        _ machine: Machine, _ history: SectorHistory, _ ranges: [Range<Int>], limit: Int, samples: Int
    ) throws {
        let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
        if let problem = walk.problem { throw Violation("the live image is damaged: \(problem)") }
        let survivors = Survivors(of: machine.disk, inFlight: machine.io.inFlight, tables: walk.tables)
        // Its own generator: the checks between the survivors draw from ours.
        var choices = SeededRandom(seed: random.next())
        try survivors.forEach(on: survivor, limit: limit, samples: samples, random: &choices) {
            try checkSurvivor(history, ranges)
        }
    }

    /// Cuts the power for good: one survivor, which the history goes on with.
    func survivor(of machine: Machine) -> SimulatedDisk {
        let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
        let survivors = Survivors(of: machine.disk, inFlight: machine.io.inFlight, tables: walk.tables)
        // Three samples of which the last is neither everything nor nothing.
        survivors.forEach(on: survivor, limit: 0, samples: 3, random: &random) {}
        return survivor.copy()
    }

    private func checkSurvivor(_ history: SectorHistory, _ ranges: [Range<Int>]) throws {
        states += 1
        try observer?(survivor, history)
        let what = "the image that is left"
        try checkBytes(
            survivor, what, allows: { history.maySurvive($0, $1) }, explain: { history.explain($0) }, ranges: ranges)
        let machine = Machine(disk: survivor, backing: backing, options: Machine.Options(), seed: random.next())
        try open(machine, what)
        var values: [UInt64] = []
        let isDeep = states % deepInterval == 0
        try readBack(machine, ranges, "after recovery") { sector, value in
            if isDeep { values.append(value) }
            return history.maySurvive(sector, value)
        } explain: { history.explain($0) }
        if isDeep {
            deepStates += 1
            try liveOn(machine, ranges, values)
        } else {
            try machine.takeDown()
        }
    }

    func open(_ machine: Machine, _ what: String) throws {
        switch try machine.open() {
        case nil: return
        case .header(let error): throw Violation("\(what) is refused: \(error)")
        case .image(let error): throw Violation("\(what) is refused: \(error)")
        }
    }

    // MARK: - Without the engine

    /// Checks the structure of an image, and what its sectors hold, from its bytes.
    @discardableResult
    func checkBytes(
        _ disk: SimulatedDisk, _ what: String, allows: (Int, UInt64) -> Bool, explain: (Int) -> String,
        ranges: [Range<Int>]
    ) throws -> StructureWalk {
        let walk = StructureWalk(disk.current, length: disk.length)
        if let problem = walk.problem { throw Violation("\(what): \(problem) (nothing was repaired)") }
        let clusterSectors = Int(scene.clusterSizeBytes / 512)
        for range in ranges {
            var sector = range.lowerBound
            while sector < range.upperBound {
                let end = min((sector / clusterSectors + 1) * clusterSectors, range.upperBound)
                let place = walk.place(ofSector: sector)
                for position in sector..<end {
                    let value: UInt64
                    switch place {
                    case .zeros: value = 0
                    case .backing: value = scene.initialValue(position)
                    case .file(let first): value = disk.current.sector(first + position - sector).map(SectorValue.read) ?? 0
                    }
                    guard allows(position, value) else {
                        throw Violation("\(what): sector \(position) holds \(String(value, radix: 16)); \(explain(position))")
                    }
                }
                sector = end
            }
        }
        return walk
    }

    // MARK: - With the engine

    /// Reads ranges through the engine and judges every sector.
    func readBack(
        _ machine: Machine, _ ranges: [Range<Int>], _ when: String, allows: (Int, UInt64) -> Bool,
        explain: (Int) -> String
    ) throws {
        for range in ranges {
            var sector = range.lowerBound
            while sector < range.upperBound {
                let count = min(range.upperBound - sector, CrashCheck.pieceBytes / 512)
                let result = try machine.perform(
                    BlockRequest(
                        .read, deviceOffset: UInt64(sector) * 512, byteCount: UInt64(count) * 512, buffer: buffer))
                if result != 0 { throw Violation("\(when): reading sector \(sector) fails with \(result)") }
                for position in 0..<count {
                    let value = SectorValue.read(buffer + position * 512)
                    guard allows(sector + position, value) else {
                        throw Violation(
                            "\(when): sector \(sector + position) reads \(String(value, radix: 16)); \(explain(sector + position))")
                    }
                }
                sector += count
            }
        }
    }

    /// A second life: more requests on the recovered image, a flush, another power cut that takes everything volatile;
    /// then a close and a reopening.
    private func liveOn(_ machine: Machine, _ ranges: [Range<Int>], _ values: [UInt64]) throws {
        var expected: [Int: UInt64] = [:]
        var index = 0
        for range in ranges {
            for sector in range {
                expected[sector] = values[index]
                index += 1
            }
        }
        for number in 0..<4 {
            let range = random.pick(ranges)
            let first = range.lowerBound + random.below(range.count)
            let count = 1 + random.below(min(range.upperBound - first, 64))
            var request = BlockRequest(
                .write, deviceOffset: UInt64(first) * 512, byteCount: UInt64(count) * 512, buffer: buffer)
            if random.chance(1, in: 4) {
                request.operation = .writeZeroes
                request.buffer = nil
            }
            for position in 0..<count {
                let value: UInt64 = 0x5ec0 << 48 | UInt64(number) << 32 | UInt64(first + position)
                SectorValue.fill(buffer + position * 512, value)
                expected[first + position] = request.operation == .write ? value : 0
            }
            let result = try machine.perform(request)
            if result != 0 { throw Violation("after recovery a \(request.operation) fails with \(result)") }
        }
        let allows = { (sector: Int, value: UInt64) in expected[sector] == value }
        let explain = { (sector: Int) in "expected \(String(expected[sector] ?? 0, radix: 16))" }
        try readBack(machine, ranges, "in the second life", allows: allows, explain: explain)
        let flushed = try machine.perform(BlockRequest(.flush))
        if flushed != 0 { throw Violation("after recovery a flush fails with \(flushed)") }
        try checkDurable(machine.disk, ranges, allows: allows, explain: explain)
        if let error = try machine.close() { throw Violation("after recovery closing fails: \(error)") }
        try checkClosed(machine.disk, ranges, allows: allows, explain: explain)
    }

    private func checkDurable(
        _ disk: SimulatedDisk, _ ranges: [Range<Int>], allows: (Int, UInt64) -> Bool, explain: (Int) -> String
    ) throws {
        let left = SimulatedDisk()
        left.beginSurvivor(of: disk, length: disk.durableLength)
        left.finishSurvivor()
        try checkBytes(left, "what was flushed in the second life", allows: allows, explain: explain, ranges: ranges)
    }

    /// An image that was closed in good order: nothing is volatile, no check is needed, the file ends with its last cluster.
    func checkClosed(
        _ disk: SimulatedDisk, _ ranges: [Range<Int>], allows: (Int, UInt64) -> Bool, explain: (Int) -> String
    ) throws {
        if !disk.changes.isEmpty || !disk.lengthChanges.isEmpty { throw Violation("closing left something volatile") }
        let walk = try checkBytes(disk, "the closed image", allows: allows, explain: explain, ranges: ranges)
        if walk.needCheck { throw Violation("closing left NEED_CHECK set") }
        let machine = Machine(disk: disk, backing: backing, options: Machine.Options(), seed: random.next())
        try open(machine, "the closed image")
        try readBack(machine, ranges, "after closing", allows: allows, explain: explain)
        if let error = try machine.close() { throw Violation("closing an image that was only read fails: \(error)") }
        if !disk.changes.isEmpty || disk.length != walk.length { throw Violation("opening a closed image changed it") }
    }
}
