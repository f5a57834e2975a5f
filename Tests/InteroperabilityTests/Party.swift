import TestSupport
import Testing

/// Who does a part of a scenario: this program, or QEMU's.
enum Party: String, CaseIterable, Sendable {
    case ours
    case qemu

    var other: Party { self == .ours ? .qemu : .ours }
}

/// What an image is made of.
struct Geometry: Sendable, Hashable, CustomTestStringConvertible {
    var clusterSizeBytes: UInt64
    var tableSizeClusters: UInt64

    static let all: [Geometry] = [4 * kib, 64 * kib, mib, 2 * mib].flatMap { clusterSize -> [Geometry] in
        [2, 4].map { Geometry(clusterSizeBytes: clusterSize, tableSizeClusters: $0) }
    }

    /// What both programs make unless told otherwise.
    static let standard = Geometry(clusterSizeBytes: 64 * kib, tableSizeClusters: 4)

    /// For `-o`, which both programs have.
    var options: String { "cluster_size=\(clusterSizeBytes),table_size=\(tableSizeClusters)" }
    var testDescription: String { "\(clusterSizeBytes / kib)K/\(tableSizeClusters)" }

    /// The part of a disk that one L2 table maps.
    var bytesPerTable: UInt64 { clusterSizeBytes * entriesPerTable }
    var entriesPerTable: UInt64 { clusterSizeBytes * tableSizeClusters / 8 }

    /// The largest disk, or as much of it as is needed here: the tables of some could map more than a file may have.
    var largestDiskBytes: UInt64 {
        let (bytes, overflow) = bytesPerTable.multipliedReportingOverflow(by: entriesPerTable)
        return overflow ? 1 << 62 : min(bytes, 1 << 62)
    }
}

/// A geometry, who creates the image, and who writes to it. Both read it and judge it afterwards.
struct Casting: Sendable, CustomTestStringConvertible {
    var geometry: Geometry
    var creator: Party
    var writer: Party

    /// Every geometry and writer, and all four pairs of creator and writer. What both create is the same, byte for
    /// byte, as a test of its own shows, so not every geometry needs each pair.
    static let all: [Casting] = Geometry.all.flatMap { geometry -> [Casting] in
        Party.allCases.map { writer in
            Casting(
                geometry: geometry, creator: geometry.tableSizeClusters == 2 ? writer : writer.other, writer: writer)
        }
    }

    var testDescription: String { "\(geometry.testDescription) created by \(creator), written by \(writer)" }
}

let kib: UInt64 = 1 << 10
let mib: UInt64 = 1 << 20
let gib: UInt64 = 1 << 30
let tib: UInt64 = 1 << 40
