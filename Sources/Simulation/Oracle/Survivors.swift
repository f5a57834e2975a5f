import BlockStorage
import Glibc

/// The disks that a power cut at this moment may leave behind.
///
/// Built from what is volatile: the sectors that have changed since the last sync, and those of operations in flight. Few
/// of them are combined in every way; of many, samples are taken, with a bias to the combinations that break things:
/// tables without data, data without tables, one sector missing, one sector alone.
struct Survivors {
    private struct Unit {
        var sector: Int
        var content: UnsafeRawPointer?
        var group: Int
        var isTable: Bool
    }

    // SAFETY: the contents belong to the disk's changes and to the buffers of operations in flight; both stay while the
    // machine stands still.
    private var units: [Unit] = []
    private var groupCount = 0
    private var lengths: [UInt64] = []
    private let disk: SimulatedDisk
    private var marks: [Int32] = []

    init(of disk: SimulatedDisk, inFlight: [SimulatedIO.Operation], tables: [Range<Int>]) {
        self.disk = disk
        lengths = [disk.durableLength]
        marks = Array(repeating: 0, count: max(disk.current.pageCount, disk.durable.pageCount) * 8 + 8)
        let sectorBytes = SparsePages.sectorBytes
        for change in disk.changes {
            add(change.firstSector, change.sectorCount, change.content.map { UnsafeRawPointer($0) }, tables)
            groupCount += 1
        }
        for change in disk.lengthChanges where lengths.last != change.length { lengths.append(change.length) }
        for operation in inFlight where operation.disk === disk {
            switch operation.kind {
            case .setLength(let length):
                if length < disk.length {
                    add(Int(length) / sectorBytes, Int(disk.length - length) / sectorBytes, nil, tables)
                }
                lengths.append(length)
            case .storage(.allocate(let fileOffset, let byteCount, _)):
                lengths.append(max(disk.length, fileOffset + byteCount))
            case .storage(.write(let buffer, let byteCount, let fileOffset)):
                add(Int(fileOffset) / sectorBytes, Int(byteCount) / sectorBytes, buffer, tables)
            case .storage(.writeGathered(let vectors, let count, let fileOffset)):
                var position = Int(fileOffset)
                for index in 0..<Int(count) {
                    add(position / sectorBytes, vectors[index].byteCount / sectorBytes, vectors[index].base, tables)
                    position += vectors[index].byteCount
                }
            case .storage(.punchHole(let fileOffset, let byteCount)), .storage(.zeroRange(let fileOffset, let byteCount)):
                add(Int(fileOffset) / sectorBytes, Int(byteCount) / sectorBytes, nil, tables)
            case .storage(.read), .storage(.sync), .syncNames, .pause:
                continue
            }
            groupCount += 1
        }
    }

    /// A sector that the change leaves as it was, whatever else survives, is no choice.
    private mutating func add(_ first: Int, _ count: Int, _ content: UnsafeRawPointer?, _ tables: [Range<Int>]) {
        let sectorBytes = SparsePages.sectorBytes
        var sector = first
        while sector < first + count {
            let mark = sector < marks.count ? Int(marks[sector]) : 0
            let before = mark > 0 ? units[mark - 1].content : disk.durable.sector(sector)
            let after = content.map { $0 + (sector - first) * sectorBytes }
            if mark == 0, content == nil, sector % 8 == 0, sector + 8 <= first + count,
                disk.durable.sector(sector) == nil, !hasMarks(sector..<(sector + 8))
            {
                sector += 8
                continue
            }
            if !Survivors.isEqual(before, after) {
                let offset = sector * sectorBytes
                units.append(
                    Unit(
                        sector: sector, content: after, group: groupCount,
                        isTable: tables.contains { $0.contains(offset) }))
                if sector >= marks.count {
                    marks.append(contentsOf: repeatElement(0, count: sector + 8 - marks.count))
                }
                marks[sector] = Int32(units.count)
            }
            sector += 1
        }
    }

    private func hasMarks(_ sectors: Range<Int>) -> Bool {
        marks[sectors.clamped(to: 0..<marks.count)].contains { $0 != 0 }
    }

    private static func isEqual(_ first: UnsafeRawPointer?, _ second: UnsafeRawPointer?) -> Bool {
        switch (first, second) {
        case (nil, nil): return true
        case (let first?, let second?): return memcmp(first, second, SparsePages.sectorBytes) == 0
        case (let bytes?, nil), (nil, let bytes?): return SectorValue.read(bytes) == 0
        }
    }

    /// How many states there are if every combination is taken; nil when that is more than `limit`.
    private func combinations(limit: Int) -> Int? {
        guard units.count < 20 else { return nil }
        let count = (1 << units.count) * lengthChoices.count
        return count <= limit ? count : nil
    }

    /// The lengths themselves, and one between each two.
    private var lengthChoices: [UInt64] {
        var choices = [lengths[0]]
        for (first, second) in zip(lengths, lengths.dropFirst()) where first != second {
            let middle = (min(first, second) + (max(first, second) - min(first, second)) / 2) / 512 * 512
            choices.append(middle)
            choices.append(second)
        }
        return choices
    }

    /// Makes survivors on `target`, one after the other.
    /// - Parameters:
    ///   - limit: of combinations that are all taken.
    ///   - samples: taken otherwise.
    ///   - body: checks the survivor; it may change `target` as it likes.
    func forEach(
        on target: SimulatedDisk, limit: Int, samples: Int, random: inout SeededRandom, _ body: () throws -> Void
    ) rethrows {
        let choices = lengthChoices
        if let count = combinations(limit: limit) {
            for state in 0..<count {
                let mask = state / choices.count
                target.beginSurvivor(of: disk, length: choices[state % choices.count])
                for index in units.indices where mask >> index & 1 != 0 {
                    target.applySurvivor(sector: units[index].sector, content: units[index].content)
                }
                target.finishSurvivor()
                try body()
            }
            return
        }
        for sample in 0..<samples {
            let first = random.below(lengths.count)
            var length = lengths[first]
            if first + 1 < lengths.count, random.chance(1, in: 3) {
                let low = min(length, lengths[first + 1])
                let span = Int(max(length, lengths[first + 1]) - low) / 512
                length = low + UInt64(span > 0 ? random.below(span) * 512 : 0)
            }
            target.beginSurvivor(of: disk, length: length)
            apply(sample, to: target, &random)
            target.finishSurvivor()
            try body()
        }
    }

    private func apply(_ sample: Int, to target: SimulatedDisk, _ random: inout SeededRandom) {
        let strategy = sample < 2 ? sample : 2 + random.below(9)
        let one = units.isEmpty ? 0 : random.below(units.count)
        let groups = random.next()
        let lastGroup = random.below(groupCount + 1)
        for (index, unit) in units.enumerated() {
            let isKept =
                switch strategy {
                case 0: false
                case 1: true
                case 2: random.chance(1, in: 2)
                case 3: random.chance(1, in: 8)
                case 4: random.chance(7, in: 8)
                case 5: groups >> UInt64(unit.group & 63) & 1 != 0
                case 6: unit.isTable || random.chance(1, in: 16)
                case 7: !unit.isTable
                case 8: index != one
                case 9: index == one
                default: unit.group < lastGroup || (unit.group == lastGroup && random.chance(1, in: 2))
                }
            if isKept { target.applySurvivor(sector: unit.sector, content: unit.content) }
        }
    }
}
