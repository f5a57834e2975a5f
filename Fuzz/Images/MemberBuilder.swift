/// Builds one file of a chain, item by item.
package struct MemberBuilder {
    private let recipe: HeaderRecipe
    private var file = SparseFile()
    private let clusterSize: UInt64
    private let entries: UInt64
    private let l1Offset: UInt64
    /// Where the next cluster is taken.
    private var end: UInt64
    private var tables: [UInt64] = []
    private var data: [UInt64] = []
    private var entryBudget = 3000

    package init(header recipe: HeaderRecipe) {
        self.recipe = recipe
        // The layout of a header that cannot be right is that of one that can.
        let isUsable =
            recipe.clusterSize.nonzeroBitCount == 1 && (4096...(1 << 26)).contains(recipe.clusterSize)
            && recipe.tableSize.nonzeroBitCount == 1 && recipe.tableSize <= 16
        clusterSize = isUsable ? recipe.clusterSize : 4096
        let tableSize = isUsable ? recipe.tableSize : 1
        entries = clusterSize * tableSize / 8
        l1Offset = (recipe.headerClusters + recipe.gapClusters) * clusterSize
        end = l1Offset + tableSize * clusterSize
        let fields: [(UInt64, UInt64)] = [
            (0, 0x0044_4551 | recipe.clusterSize << 32), (8, recipe.tableSize | recipe.headerClusters << 32),
            (16, recipe.features), (24, recipe.compatFeatures), (32, recipe.autoclearFeatures), (40, l1Offset),
            (48, recipe.imageSize), (56, recipe.features & 1 == 0 ? 0 : 64 | 4 << 32),
        ]
        for (offset, value) in fields { file.setWord(value, at: offset) }
        if recipe.features & 1 != 0 { file.write(Array("base".utf8), at: 64) }
        file.setLength(end)
    }

    /// - Returns: whether the chain ends with this member.
    package mutating func build(_ reader: inout ByteReader) -> Bool {
        for _ in 0..<256 where !reader.isAtEnd {
            guard let item = ImageRecipe.Item(rawValue: reader.byte() % UInt8(ImageRecipe.Item.allCases.count)) else {
                return true
            }
            switch item {
            case .map: map(deviceCluster(&reader), zero: false)
            case .mapZero: map(deviceCluster(&reader), zero: true)
            case .l1Entry:
                let index = tableIndex(&reader)
                file.setWord(value(&reader), at: l1Offset + index * 8)
            case .l2Entry:
                let table = place(reader.byte())
                let index = tableIndex(&reader)
                set(value(&reader), at: table + index * 8)
            case .run:
                let table = place(reader.byte())
                var index = tableIndex(&reader)
                let count = Int(reader.half() % 1024)
                var entry = value(&reader)
                let stride = UInt64(reader.byte() % 4) * clusterSize
                for _ in 0..<count where entryBudget > 0 && index < entries {
                    set(entry, at: table + index * 8)
                    entry &+= stride
                    index += 1
                    entryBudget -= 1
                }
            case .poke:
                let offset = reader.half() * 8
                set(value(&reader), at: offset)
            case .field:
                let offset = UInt64(reader.byte() % 16) * 4
                let entry = value(&reader)
                // Half of a word at a time: fields of 32 bits lie beside each other.
                withUnsafeBytes(of: entry.littleEndian) { bytes in
                    file.write(UnsafeRawBufferPointer(rebasing: bytes[0..<4]), at: offset)
                    if offset % 8 == 0, offset >= 16, offset < 56 { file.write(bytes, at: offset) }
                }
            case .content:
                let cluster = UInt64(reader.byte())
                write(tag: UInt64(reader.byte()) | 0xc000, toClusterAt: cluster * clusterSize)
            case .name:
                let count = Int(reader.byte() % 32)
                file.write((0..<count).map { _ in reader.byte() }, at: 64)
            case .member: return false
            case .end: return true
            }
        }
        return true
    }

    /// The file, with the length that the input wants.
    package func finished() -> SparseFile {
        var file = self.file
        var length = max(end, file.length) + recipe.spareClusters * clusterSize
        length = min(length + recipe.lengthExtra, SparseFile.longest)
        let tailed = Int64(length).addingReportingOverflow(recipe.tail)
        if !tailed.overflow && tailed.partialValue > 0 { length = UInt64(tailed.partialValue) }
        file.setLength(length)
        return file
    }

    private mutating func set(_ entry: UInt64, at offset: UInt64) {
        // Within the part of the file that is described; what points further is not worth its pages.
        guard offset < 1 << 40 else { return }
        file.setWord(entry, at: offset & ~7)
    }

    private mutating func map(_ cluster: UInt64, zero: Bool) {
        let l1Index = cluster / entries
        guard l1Index < entries, entryBudget > 0 else { return }
        entryBudget -= 1
        var table = file.word(at: l1Offset + l1Index * 8)
        if table == 0 {
            table = end
            end += entries * 8
            file.setWord(table, at: l1Offset + l1Index * 8)
            tables.append(table)
        }
        guard !zero else {
            set(1, at: table &+ cluster % entries * 8)
            return
        }
        set(end, at: table &+ cluster % entries * 8)
        write(tag: cluster, toClusterAt: end)
        data.append(end)
        end += clusterSize
    }

    /// Content in the first and the last page of a cluster.
    private mutating func write(tag: UInt64, toClusterAt offset: UInt64) {
        guard offset < 1 << 40, entryBudget > 0 else { return }
        entryBudget -= 1
        file.write(ImageRecipe.tagged(tag, sectors: 8), at: offset)
        if clusterSize > 4096 {
            file.write(ImageRecipe.tagged(tag &+ 1 << 32, sectors: 8), at: offset + clusterSize - 4096)
        }
    }

    // MARK: - Choices

    private func deviceCluster(_ reader: inout ByteReader) -> UInt64 {
        let choice = reader.byte()
        let clusters = (recipe.imageSize &+ clusterSize &- 1) / clusterSize
        return switch choice {
        case 0..<0xe0: UInt64(choice)
        case 0xe0: clusters &- 1
        case 0xe1: clusters
        case 0xe2: entries - 1
        case 0xe3: entries
        case 0xe4: entries * entries - 1
        case 0xe5...0xe8: 512 * UInt64(choice - 0xe4) - 1
        case 0xe9...0xef: entries * UInt64(choice - 0xe8) + 1
        default: reader.half()
        }
    }

    private func tableIndex(_ reader: inout ByteReader) -> UInt64 {
        let choice = reader.byte()
        return switch choice {
        case 0..<0xf0: UInt64(choice)
        case 0xf0: entries - 1
        case 0xf1: entries - 2
        case 0xf2: 511
        case 0xf3: 512 % entries
        default: reader.half() % entries
        }
    }

    /// Something in the file that entries can lie in: a table that was made, the L1 table, or any cluster.
    private func place(_ choice: UInt8) -> UInt64 {
        if choice < 0x80, !tables.isEmpty { return tables[Int(choice) % tables.count] }
        if choice == 0x80 { return l1Offset }
        return UInt64(choice & 0x7f) * clusterSize
    }

    /// What an entry may hold: everything that has ever been trouble.
    private func value(_ reader: inout ByteReader) -> UInt64 {
        let choice = reader.byte()
        let lastTable = tables.last ?? l1Offset
        switch choice % 32 {
        case 0: return 0
        case 1: return 1
        case 2, 3, 4, 5: return UInt64(reader.byte()) * clusterSize
        case 6: return l1Offset
        case 7: return tables.isEmpty ? end : tables[Int(reader.byte()) % tables.count]
        case 8: return data.isEmpty ? end : data[Int(reader.byte()) % data.count]
        case 9: return end
        case 10: return end &- clusterSize
        case 11: return end &+ clusterSize
        case 12: return end &- entries * 8 &+ clusterSize
        case 13: return lastTable &+ clusterSize
        case 14: return lastTable &- clusterSize
        case 15: return UInt64(reader.byte()) * clusterSize &+ 512
        case 16: return UInt64(reader.byte())
        case 17: return 1 << 63
        case 18: return .max
        case 19: return .max & ~(clusterSize - 1)
        case 20: return 1 << 62
        case 21: return 1 << 40
        case 22: return 1 << 63 - clusterSize
        case 23: return reader.half()
        case 24: return reader.half() * clusterSize
        case 25: return 1 << UInt64(reader.byte() % 64)
        case 26: return end &+ recipe.spareClusters * clusterSize
        case 27: return end &+ recipe.spareClusters * clusterSize &- clusterSize
        case 28: return (end &+ recipe.lengthExtra) & ~(clusterSize - 1)
        case 29: return ((end &+ recipe.lengthExtra) & ~(clusterSize - 1)) &- clusterSize
        case 30: return l1Offset &+ entries * 8 &- clusterSize
        default: return reader.word()
        }
    }
}
