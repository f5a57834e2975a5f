import Foundation
import Simulation
import TestSupport

/// A sound image of random structure, and random damage to it, all from a seed.
///
/// What lies where is known here, so that damage can be aimed: at tables, at somebody's data, at the end of the file.
struct DamagedImage {
    private(set) var image: ImageBuilder
    /// What was done to it, for messages.
    private(set) var damage: [String] = []
    private var random: SeededRandom

    /// File offsets of what is where, by kind.
    private var data: [UInt64] = []
    private var unused: [UInt64] = []
    /// For each L2 table its L1 index.
    private var l1Indexes: [UInt64] = []
    /// The entries that are set: their table, by position, and index.
    private var entries: [(table: Int, index: UInt64)] = []

    private var cluster: UInt64 { image.clusterSizeBytes }
    private var tableBytes: UInt64 { cluster * UInt64(image.header.tableSize) }
    private var entriesPerTable: UInt64 { tableBytes / 8 }

    static let clusterSizes: [UInt32] = [4 << 10, 64 << 10, 1 << 20]
    /// Those that QEMU opens.
    static let tableSizes: [UInt32] = [2, 4, 16]

    init(seed: UInt64) {
        random = SeededRandom(seed: seed)
        let geometries = Self.clusterSizes.flatMap { size in Self.tableSizes.map { (size, $0) } }
        let (clusterSize, tableSize) = geometries[Int(seed % UInt64(geometries.count))]
        image = ImageBuilder.empty(clusterSize: clusterSize, tableSize: tableSize)
        build()
        for _ in 0..<Int.random(in: 0...6, using: &random) { hurt() }
    }

    // MARK: A sound image

    private mutating func build() {
        enum Unit { case l1, l2, data, unused }
        let counts = (tables: Int.random(in: 0...4, using: &random), data: Int.random(in: 0...24, using: &random))
        var units = Array(repeating: Unit.l2, count: counts.tables)
        units += Array(repeating: .data, count: counts.tables == 0 ? 0 : counts.data)
        units += Array(
            repeating: .unused, count: Bool.random(using: &random) ? 0 : Int.random(in: 1...4, using: &random))
        units = [.l1] + units.shuffled(using: &random)
        // Mostly the L1 table comes first.
        if Int.random(in: 0..<4, using: &random) == 0 { units.shuffle(using: &random) }

        image.header.headerSize = UInt32.random(in: 1...3, using: &random)
        var position = UInt64(image.header.headerSize) * cluster
        for unit in units {
            switch unit {
            case .l1: image.header.l1TableOffset = position
            case .l2: image.tables.append(position)
            case .data: data.append(position)
            case .unused: unused.append(position)
            }
            position += unit == .l1 || unit == .l2 ? tableBytes : cluster
        }
        image.header.fileSizeBytes = position
        for offset in data + unused { image.put([UInt8.random(in: 1...255, using: &random)], at: offset) }

        var l1Index: UInt64 = 0
        for table in image.tables {
            l1Index += UInt64.random(in: 0...1, using: &random)
            l1Indexes.append(l1Index)
            image.l1(l1Index, table)
            l1Index += 1
        }
        var next = Array(repeating: UInt64(0), count: image.tables.count)
        for offset in data {
            let table = Int.random(in: 0..<image.tables.count, using: &random)
            next[table] += UInt64.random(in: 0...2, using: &random)
            // Some far away, in another piece of the table.
            if Int.random(in: 0..<10, using: &random) == 0 { next[table] += entriesPerTable / 8 }
            guard next[table] < entriesPerTable else { continue }
            image.l2(table, next[table], offset)
            entries.append((table, next[table]))
            next[table] += 1
        }
        for table in image.tables.indices where Bool.random(using: &random) && next[table] < entriesPerTable {
            image.l2(table, next[table], 1)
        }
        let spanBytes = entriesPerTable * cluster
        let spans = UInt64.random(in: 1...6, using: &random)
        let sectors = UInt64.random(in: 0...(spans * spanBytes / 512), using: &random)
        image.header.imageSize = Bool.random(using: &random) ? spans * spanBytes : sectors * 512
    }

    // MARK: Damage

    private mutating func hurt() {
        switch Int.random(in: 0..<20, using: &random) {
        case 0..<8: hurtL2Entry()
        case 8..<12: hurtL1Entry()
        case 12: addGarbage()
        case 13, 14: cut()
        case 15: extend()
        case 16, 17: setFeatures()
        case 18: fillHeader()
        default: unlink()
        }
    }

    /// A value that no entry should have, or that is somebody else's.
    private mutating func wrongValue() -> UInt64 {
        let end = image.header.fileSizeBytes / cluster * cluster
        let l1Table = image.header.l1TableOffset
        let header = UInt64(image.header.headerSize)
        let candidates: [[UInt64]] = [
            [2, 3, 511, 512, 4095, 4096 + 1, 8], data.map { $0 + 512 }, data.map { $0 + 1 },
            (0..<header).map { $0 * cluster }, [l1Table, l1Table + tableBytes - cluster],
            image.tables, image.tables.map { $0 + tableBytes - cluster }, image.tables.map { $0 + cluster }, data, data,
            data,
            data, unused, [end, end + cluster, end + 7 * cluster],
            [end - min(end, cluster), end - min(end, tableBytes)],
            [1 << 40, 1 << 62, 1 << 63, .max, .max - (cluster - 1), .max - (tableBytes - 1), (1 << 63) - cluster],
            [0 &- tableBytes, 0 &- cluster, 1, 0],
        ]
        let some = candidates.randomElement(using: &random) ?? []
        return some.randomElement(using: &random) ?? end
    }

    private mutating func hurtL2Entry() {
        guard !image.tables.isEmpty else { return }
        var place = (table: Int.random(in: 0..<image.tables.count, using: &random), index: UInt64(0))
        if let known = entries.randomElement(using: &random), Int.random(in: 0..<3, using: &random) > 0 {
            place = known
        } else {
            let limit = Bool.random(using: &random) ? 40 : entriesPerTable
            place.index = UInt64.random(in: 0..<limit, using: &random)
        }
        let value = wrongValue()
        image.l2(place.table, place.index, value)
        damage.append("L2 entry \(place.index) of table \(place.table) = \(value)")
        // A run of neighbours, as a write of several clusters leaves it.
        if value > 4096, value % cluster == 0, Int.random(in: 0..<4, using: &random) == 0 {
            for step in 1...3 as ClosedRange<UInt64> where place.index + step < entriesPerTable {
                image.l2(place.table, place.index + step, value &+ step * cluster)
            }
            damage.append("and three that continue it")
        }
    }

    private mutating func hurtL1Entry() {
        var index = UInt64.random(in: 0..<8, using: &random)
        if let known = l1Indexes.randomElement(using: &random), Bool.random(using: &random) { index = known }
        if Int.random(in: 0..<8, using: &random) == 0 { index = UInt64.random(in: 0..<entriesPerTable, using: &random) }
        let value = wrongValue()
        image.l1(index, value)
        damage.append("L1 entry \(index) = \(value)")
    }

    /// Bytes that were never meant as entries.
    private mutating func addGarbage() {
        guard let table = image.tables.randomElement(using: &random) else { return }
        let count = [8, 512, 4096].randomElement(using: &random) ?? 8
        let offset = UInt64.random(in: 0...((tableBytes - UInt64(count)) / 8), using: &random) * 8
        image.put((0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }, at: table + offset)
        damage.append("\(count) bytes of garbage in a table at \(table + offset)")
    }

    /// Never into the L1 table: there is no image then.
    private mutating func cut() {
        let l1End = image.header.l1TableOffset + tableBytes
        let sizes: [UInt64] = [
            1, 300, 511, 512, 513, 4096, cluster - 1, cluster, cluster + 512, 2 * cluster, 3 * cluster, tableBytes,
        ]
        let bytes = sizes.randomElement(using: &random) ?? 1
        guard image.header.fileSizeBytes >= l1End + bytes else { return }
        image.header.fileSizeBytes -= bytes
        damage.append("cut by \(bytes)")
    }

    private mutating func extend() {
        let sizes: [UInt64] = [1, 511, 512, 1000, cluster - 1, cluster, 3 * cluster + 512]
        let bytes = sizes.randomElement(using: &random) ?? 1
        image.put([0xee], at: image.header.fileSizeBytes)
        image.header.fileSizeBytes += bytes
        damage.append("longer by \(bytes)")
    }

    private mutating func setFeatures() {
        if Int.random(in: 0..<4, using: &random) > 0 {
            image.header.features |= 2
            damage.append("NEED_CHECK")
        } else {
            image.header.compatFeatures = random.next()
            image.header.autoclearFeatures = random.next()
            damage.append("compat and autoclear bits")
        }
    }

    private mutating func fillHeader() {
        let count = Int.random(in: 1...1000, using: &random)
        image.put((0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }, at: 64)
        damage.append("\(count) bytes of other data in the header area")
    }

    private mutating func unlink() {
        if let entry = entries.randomElement(using: &random) {
            image.l2(entry.table, entry.index, UInt64.random(in: 0...1, using: &random))
            damage.append("L2 entry \(entry.index) of table \(entry.table) gone")
        }
    }
}
