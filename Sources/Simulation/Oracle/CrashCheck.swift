import Glibc
import QEDEngine
import QEDFormat

/// Judges what a power cut leaves: its structure without any repair, its content as QEMU would read it, and then, in a
/// part of them, the engine itself, which must open it, read the same, and serve it as if nothing had happened.
final class CrashCheck {
    let scene: Scene
    let backing: [Machine.BackingFile]
    private var random: SeededRandom
    private let survivor = SimulatedDisk()
    /// Of what was the top before a switch.
    private let lowerSurvivor = SimulatedDisk()
    /// Of what snapshots are being merged into.
    private let targetSurvivor = SimulatedDisk()
    private let buffer: UnsafeMutableRawPointer
    private static let pieceBytes = 1 << 17
    /// Survivors that were checked.
    private(set) var states = 0
    /// One survivor in so many is opened by the engine.
    var openInterval = 8
    /// One in so many gets a second life.
    var deepInterval = 32
    private var judged = JudgedClusters()
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
        if let lower = machine.lower { return try cutPower(machine, lower, history, ranges, samples: samples) }
        let walk = StructureWalk(machine.disk.current, length: machine.disk.length)
        if let problem = walk.problem { throw Violation("the live image is damaged: \(problem)") }
        let survivors = Survivors(of: machine.disk, inFlight: machine.io.inFlight, tables: walk.tables)
        // Its own generator: the checks between the survivors draw from ours.
        var choices = SeededRandom(seed: random.next())
        judged.begin(machine.disk.durable)
        defer { judged.end() }
        guard let merge = machine.merge else {
            return try survivors.forEach(on: survivor, limit: limit, samples: samples, random: &choices) {
                try checkSurvivor(survivor, over: try machine.sealedLayers(under: survivor, target: nil), history, ranges)
            }
        }
        let targets = try self.survivors(of: merge.target, machine)
        judged.end()
        try targets.forEach(on: targetSurvivor, limit: 0, samples: samples, random: &choices) {
            var others = SeededRandom(seed: random.next())
            try survivors.forEach(on: survivor, limit: 0, samples: 3, random: &others) {
                try checkSurvivor(
                    survivor, over: try machine.sealedLayers(under: survivor, target: targetSurvivor), history, ranges)
            }
        }
    }

    /// Since a switch two files lose what is not durable of each; and where their names are not, the image's leads to the old
    /// top, or to the new one over it.
    private func cutPower(
        _ machine: Machine, _ lower: LowerLayer, _ history: SectorHistory, _ ranges: [Range<Int>], samples: Int
    ) throws {
        let tops = try survivors(of: machine.disk, machine)
        let lowers = try survivors(of: lower.disk, machine)
        var choices = SeededRandom(seed: random.next())
        judged.end()
        try lowers.forEach(on: lowerSurvivor, limit: 0, samples: samples, random: &choices) {
            if !lower.names.areDurable, random.chance(1, in: 2) {
                return try checkSurvivor(lowerSurvivor, over: machine.sealed, history, ranges)
            }
            let frozen = FrozenLayer(lowerSurvivor)
            if let problem = frozen.walk.problem { throw Violation("what was the top before: \(problem)") }
            var others = SeededRandom(seed: random.next())
            try tops.forEach(on: survivor, limit: 0, samples: 3, random: &others) {
                try checkSurvivor(survivor, over: [frozen] + machine.sealed, history, ranges)
            }
        }
    }

    private func survivors(of disk: SimulatedDisk, _ machine: Machine) throws -> Survivors {
        let walk = StructureWalk(disk.current, length: disk.length)
        if let problem = walk.problem { throw Violation("a live image is damaged: \(problem)") }
        return Survivors(of: disk, inFlight: machine.io.inFlight, tables: walk.tables)
    }

    /// Cuts the power for good: one survivor, which the history goes on with.
    /// - Returns: the image, and what lies beneath it above the scene's own.
    func survivor(of machine: Machine) throws -> (disk: SimulatedDisk, sealed: [FrozenLayer]) {
        func one(_ disk: SimulatedDisk) throws -> SimulatedDisk {
            // Three samples of which the last is neither everything nor nothing.
            try survivors(of: disk, machine).forEach(on: survivor, limit: 0, samples: 3, random: &random) {}
            return survivor.copy()
        }
        guard let lower = machine.lower else {
            let target = try machine.merge.map { try one($0.target) }
            let image = try one(machine.disk)
            return (image, try machine.sealedLayers(under: image, target: target))
        }
        let left = try one(lower.disk)
        if !lower.names.areDurable, random.chance(1, in: 2) { return (left, machine.sealed) }
        return (try one(machine.disk), [FrozenLayer(left)] + machine.sealed)
    }

    private func checkSurvivor(
        _ survivor: SimulatedDisk, over sealed: [FrozenLayer], _ history: SectorHistory, _ ranges: [Range<Int>]
    ) throws {
        states += 1
        if sealed.isEmpty { try observer?(survivor, history) }
        let what = "the image that is left"
        try checkBytes(
            survivor, over: sealed, what, allows: { history.maySurvive($0, $1) }, explain: { history.explain($0) },
            ranges: ranges, judged: &judged)
        let isDeep = states % deepInterval == 0
        guard isDeep || states % openInterval == 0 else { return }
        let machine = Machine(
            disk: survivor, sealed: sealed, backing: backing, options: Machine.Options(), seed: random.next())
        try open(machine, what)
        var values: [UInt64] = []
        try readBack(machine, ranges, "after recovery") { sector, value in
            if isDeep { values.append(value) }
            return history.maySurvive(sector, value)
        } explain: {
            history.explain($0)
        }
        if isDeep {
            try liveOn(machine, ranges, values)
        } else {
            try machine.takeDown()
        }
    }

    /// Opens the image, which must replay the log where there is one.
    func open(_ machine: Machine, _ what: String, afterStep: (Bool) throws -> Void = { _ in }) throws {
        switch try machine.open(afterStep: afterStep) {
        case nil:
            if let reason = machine.image?.replayRefusal { throw Violation("\(what): its log is refused: \(reason)") }
        case .header(let error): throw Violation("\(what) is refused: \(error)")
        case .image(let error): throw Violation("\(what) is refused: \(error)")
        }
    }

    // MARK: - Without the engine

    /// Checks the structure of an image, and what its sectors hold, from its bytes.
    @discardableResult
    func checkBytes(
        _ disk: SimulatedDisk, over sealed: [FrozenLayer] = [], _ what: String, allows: (Int, UInt64) -> Bool,
        explain: (Int) -> String, ranges: [Range<Int>]
    ) throws -> StructureWalk {
        var judged = JudgedClusters()
        return try checkBytes(disk, over: sealed, what, allows: allows, explain: explain, ranges: ranges, judged: &judged)
    }

    @discardableResult
    private func checkBytes(
        _ disk: SimulatedDisk, over sealed: [FrozenLayer], _ what: String, allows: (Int, UInt64) -> Bool,
        explain: (Int) -> String, ranges: [Range<Int>], judged: inout JudgedClusters
    ) throws -> StructureWalk {
        let walk = StructureWalk(disk.current, length: disk.length)
        if let problem = walk.problem { throw Violation("\(what): \(problem) (nothing was repaired)") }
        let clusterSectors = Int(scene.clusterSizeBytes / 512)
        let standsAlone = Machine.backingName(of: disk).isEmpty
        judged.beginDisk()
        for range in ranges {
            var sector = range.lowerBound
            while sector < range.upperBound {
                let end = min((sector / clusterSectors + 1) * clusterSectors, range.upperBound)
                var place = walk.place(ofSector: sector)
                if standsAlone, place == .backing { place = .zeros }
                if judged.isKnown(place, sectorCount: end - sector, on: disk.current) {
                    sector = end
                    continue
                }
                for position in sector..<end {
                    let value: UInt64
                    switch place {
                    case .zeros: value = 0
                    case .backing: value = scene.value(position, through: sealed)
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
                        let read = "sector \(sector + position) reads \(String(value, radix: 16))"
                        throw Violation("\(when): \(read); \(explain(sector + position))")
                    }
                }
                sector += count
            }
        }
    }

    /// A second life: more requests on the recovered image, a flush, another power cut that takes everything volatile;
    /// then a close and a reopening.
    private func liveOn(_ machine: Machine, _ ranges: [Range<Int>], _ values: [UInt64]) throws {
        var content = DeviceContent(ranges, values)
        try write(machine, &content, "after recovery")
        try flush(machine, content, "in the second life")
        try close(machine, content, "after recovery")
    }

    /// Some writes and zeroes; then everything is read back.
    func write(_ machine: Machine, _ content: inout DeviceContent, _ when: String) throws {
        for _ in 0..<4 {
            let range = random.pick(content.ranges)
            let first = range.lowerBound + random.below(range.count)
            let count = 1 + random.below(min(range.upperBound - first, 64))
            var request = BlockRequest(
                .write, deviceOffset: UInt64(first) * 512, byteCount: UInt64(count) * 512, buffer: buffer)
            if random.chance(1, in: 4) {
                request.operation = .writeZeroes
                request.buffer = nil
            }
            for position in 0..<count {
                // By chance, not by number: a third life must not write what the second one has.
                let value: UInt64 = 0x5ec0 << 48 | random.next() >> 16
                SectorValue.fill(buffer + position * 512, value)
                content[first + position] = request.operation == .write ? value : 0
            }
            let result = try machine.perform(request)
            if result != 0 { throw Violation("\(when) a \(request.operation) fails with \(result)") }
        }
        try readBack(machine, content, when)
    }

    func readBack(_ machine: Machine, _ content: DeviceContent, _ when: String) throws {
        try readBack(machine, content.ranges, when, allows: content.allows, explain: content.explain)
    }

    /// A flush, and a power cut that takes everything volatile.
    func flush(_ machine: Machine, _ content: DeviceContent, _ when: String) throws {
        let flushed = try machine.perform(BlockRequest(.flush))
        if flushed != 0 { throw Violation("\(when) a flush fails with \(flushed)") }
        try checkDurable(
            machine, "what was flushed \(when)", content.ranges, allows: content.allows, explain: content.explain)
    }

    /// Checks what a power cut leaves that takes everything volatile.
    func checkDurable(
        _ machine: Machine, _ what: String, _ ranges: [Range<Int>], allows: (Int, UInt64) -> Bool, explain: (Int) -> String
    ) throws {
        func durable(_ disk: SimulatedDisk) -> SimulatedDisk {
            let left = SimulatedDisk()
            left.beginSurvivor(of: disk, length: disk.durableLength)
            left.finishSurvivor()
            return left
        }
        let left = durable(machine.disk)
        var sealed = try machine.sealedLayers(under: left, target: machine.merge.map { durable($0.target) })
        if let lower = machine.lower {
            if !lower.names.areDurable { throw Violation("\(what): its name leads to what was the top before") }
            sealed.insert(FrozenLayer(durable(lower.disk)), at: 0)
        }
        try checkBytes(left, over: sealed, what, allows: allows, explain: explain, ranges: ranges)
    }

    /// What was the top before a switch, once it is sealed: a sound image that was closed well, durable to the last byte, with
    /// what the device held at the moment of the switch.
    func checkSnapshot(_ lower: LowerLayer, over sealed: [FrozenLayer], _ ranges: [Range<Int>]) throws {
        let history = lower.history
        try checkClosed(
            lower.disk, over: sealed, ranges, allows: { history.mayRead($0, $1, start: history.now + 1) },
            explain: { history.explain($0) })
    }

    func close(_ machine: Machine, _ content: DeviceContent, _ when: String) throws {
        if let error = try machine.close() { throw Violation("\(when) closing fails: \(error)") }
        try checkClosed(machine.disk, over: machine.sealed, content.ranges, allows: content.allows, explain: content.explain)
    }

    /// An image that was closed in good order: nothing is volatile, no check is needed, the file ends with its last cluster.
    func checkClosed(
        _ disk: SimulatedDisk, over sealed: [FrozenLayer] = [], _ ranges: [Range<Int>], allows: (Int, UInt64) -> Bool,
        explain: (Int) -> String
    ) throws {
        if !disk.changes.isEmpty || !disk.lengthChanges.isEmpty { throw Violation("closing left something volatile") }
        let walk = try checkBytes(disk, over: sealed, "the closed image", allows: allows, explain: explain, ranges: ranges)
        if walk.needCheck { throw Violation("closing left NEED_CHECK set") }
        let machine = Machine(
            disk: disk, sealed: sealed, backing: backing, options: Machine.Options(), seed: random.next())
        try open(machine, "the closed image")
        try readBack(machine, ranges, "after closing", allows: allows, explain: explain)
        if let error = try machine.close() { throw Violation("closing an image that was only read fails: \(error)") }
        if !disk.changes.isEmpty || disk.length != walk.length { throw Violation("opening a closed image changed it") }
    }
}
