import Foundation
import TestSupport

/// What is wrong with an image, found the plain way: with none of the code under test, and none of QEMU's.
///
/// Clusters are claimed in the order of the tables; whoever comes second counts. A table any cluster of which was
/// claimed before is not looked into.
struct StructureTruth: Equatable {
    var corruptions: UInt64 = 0
    var leaks: UInt64 = 0
    /// Entries that name something, right or wrong.
    var allocated: UInt64 = 0
    /// Whole clusters of the file; up to 511 bytes may be missing.
    private(set) var fileClusters: UInt64 = 0

    init(of path: String) throws {
        let file = try FileContent(of: path)
        func number(_ offset: UInt64, _ count: Int) -> UInt64 {
            (0..<count).reduce(0) { $0 | UInt64(file.byte(at: offset + UInt64($1))) << (8 * UInt64($1)) }
        }
        let cluster = number(4, 4)
        let tableClusters = number(8, 4)
        let headerClusters = number(12, 4)
        let l1Table = number(40, 8) / cluster
        fileClusters = (file.sizeBytes + 511) / 512 * 512 / cluster

        var owned = Set<UInt64>()
        func claim(_ first: UInt64, _ count: UInt64) -> UInt64 {
            (first..<(first + count)).reduce(0) { owned.insert($1).inserted ? $0 : $0 + 1 }
        }
        /// Nil: the entry cannot be right.
        func first(_ value: UInt64, clusters count: UInt64) -> UInt64? {
            let first = value / cluster
            guard value % cluster == 0, first >= headerClusters, first < fileClusters, count <= fileClusters - first
            else {
                return nil
            }
            return first
        }

        _ = claim(l1Table, tableClusters)
        for (_, value) in file.words(in: l1Table * cluster, count: tableClusters * cluster / 8) {
            guard let table = first(value, clusters: tableClusters) else {
                corruptions += 1
                continue
            }
            let taken = claim(table, tableClusters)
            corruptions += taken
            if taken > 0 { continue }
            for (_, value) in file.words(in: value, count: tableClusters * cluster / 8) where value != 1 {
                allocated += 1
                guard let data = first(value, clusters: 1) else {
                    corruptions += 1
                    continue
                }
                corruptions += claim(data, 1)
            }
        }
        leaks = fileClusters - headerClusters - UInt64(owned.count)
    }
}

extension FileContent {
    /// 0 where nothing is.
    func byte(at offset: UInt64) -> UInt8 {
        guard let piece = pieces[offset & ~65535] else { return 0 }
        let index = Int(offset & 65535)
        return index < piece.count ? piece[piece.startIndex + index] : 0
    }

    /// The words of a table that are not 0, with their index, in order.
    func words(in start: UInt64, count: UInt64) -> [(UInt64, UInt64)] {
        var words: [(UInt64, UInt64)] = []
        let end = start + count * 8
        for pieceStart in pieces.keys.filter({ $0 < end && $0 + 65536 > start }).sorted() {
            for offset in stride(from: max(start, pieceStart), to: min(end, pieceStart + 65536), by: 8) {
                let value = (0..<8).reduce(UInt64(0)) { $0 | UInt64(byte(at: offset + $1)) << (8 * $1) }
                if value != 0 { words.append(((offset - start) / 8, value)) }
            }
        }
        return words
    }
}
