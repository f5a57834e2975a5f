import Simulation
import TestSupport

/// A disk and random work on it, from a seed: the same seed is the same trace.
///
/// What QEMU gets wrong is left out: see `KnownFaultTests`.
struct Trace: CustomStringConvertible {
    struct Base {
        var format: String
        var geometry: Geometry
        var sizeBytes: UInt64
        var commands: [String]
    }

    /// One of the twins is worked on by one program, and the other one by the other.
    enum Step {
        /// Commands that one process performs; the next one opens the image anew.
        case session([String], firstBy: Party)
        case grow(to: UInt64, firstBy: Party)
    }

    let seed: UInt64
    let geometry: Geometry
    let creators: (Party, Party)
    let sizeBytes: UInt64
    let base: Base?
    private(set) var steps: [Step] = []
    private(set) var finalSizeBytes: UInt64

    private var random: SeededRandom
    private var pattern: UInt64 = 0
    /// Clusters that can be zero clusters over a backing file: QEMU must not write to a part of one.
    private var zeroClusters: Set<UInt64> = []

    init(seed: UInt64) {
        self.seed = seed
        random = SeededRandom(seed: seed)
        geometry = Geometry.all[Int(seed % UInt64(Geometry.all.count))]
        creators = Bool.random(using: &random) ? (.ours, .qemu) : (.qemu, .ours)
        sizeBytes = Trace.size(geometry, &random)
        finalSizeBytes = sizeBytes
        base = Trace.base(ofDiskOf: sizeBytes, geometry, &random)
        let sessions = Int.random(in: 2...4, using: &random)
        for number in 0..<sessions {
            if number > 0, Int.random(in: 0..<3, using: &random) == 0 { addGrowth() }
            addSession()
        }
    }

    /// Disks of a few clusters, of one table and a part, and of several.
    private static func size(_ geometry: Geometry, _ random: inout SeededRandom) -> UInt64 {
        let table = geometry.bytesPerTable
        let clusters = geometry.clusterSizeBytes * UInt64.random(in: 2...20, using: &random)
        let isHuge = table >= 4 * gib
        var size = clusters
        switch Int.random(in: 0..<6, using: &random) {
        case 0: size = table + clusters
        case 1 where !isHuge: size = table + table / 2
        case 2 where table < 2 * gib: size = 2 * table + clusters
        default: break
        }
        if Bool.random(using: &random) { size += 512 * UInt64.random(in: 1...100, using: &random) }
        return min(size, geometry.largestDiskBytes)
    }

    private static func base(
        ofDiskOf sizeBytes: UInt64, _ overlay: Geometry, _ random: inout SeededRandom
    ) -> Base? {
        let format: String
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<4: return nil
        case 4..<7: format = "raw"
        default: format = "qed"
        }
        var size: UInt64
        switch Int.random(in: 0..<3, using: &random) {
        case 0: size = UInt64.random(in: 1...(sizeBytes / 512), using: &random) * 512
        case 1: size = sizeBytes
        default: size = sizeBytes + 512 * UInt64.random(in: 1...1000, using: &random)
        }
        let fitting = Geometry.all.filter { $0.largestDiskBytes >= size }
        let geometry = fitting.randomElement(using: &random) ?? overlay
        // A raw file need not end with a sector.
        if format == "raw", Int.random(in: 0..<4, using: &random) == 0 { size -= 100 }
        let commands = (0..<Int.random(in: 2...8, using: &random)).map { index in
            let place = place(in: size, overlay, &random)
            return "write -P \(200 + index) \(place.start) \(place.count)"
        }
        return Base(format: format, geometry: geometry, sizeBytes: size, commands: commands)
    }

    /// A range at the beginning of the disk, around the end of a table, or at its end.
    private static func place(
        in sizeBytes: UInt64, _ geometry: Geometry, _ random: inout SeededRandom
    ) -> (start: UInt64, count: UInt64) {
        let cluster = geometry.clusterSizeBytes
        let tables = sizeBytes / geometry.bytesPerTable
        let centers = [0, geometry.bytesPerTable * UInt64.random(in: 0...tables, using: &random), sizeBytes]
        let center = centers.randomElement(using: &random) ?? 0
        let reach = min(max(4 * cluster, 128 * kib), sizeBytes)
        let low = center > reach ? center - reach : 0
        var start = UInt64.random(in: low...min(center + reach, sizeBytes - 1), using: &random)
        let longest = Int.random(in: 0..<5, using: &random) == 0 ? 3 * mib : min(3 * cluster, 256 * kib)
        var count = UInt64.random(in: 1...(Bool.random(using: &random) ? 4096 : longest), using: &random)
        switch Int.random(in: 0..<8, using: &random) {
        case 0..<4:
            start = start / 512 * 512
            count = (count + 511) / 512 * 512
        case 4..<6:
            start = start / cluster * cluster
            count = (count + cluster - 1) / cluster * cluster
        default: break
        }
        return (start, min(count, sizeBytes - start, 8 * mib))
    }

    private mutating func addSession() {
        var commands: [String] = []
        for _ in 0..<Int.random(in: 3...14, using: &random) {
            let (start, count) = Trace.place(in: finalSizeBytes, geometry, &random)
            switch Int.random(in: 0..<20, using: &random) {
            case 0..<10: commands.append(write(start, count))
            case 10..<14: commands.append(zero(start, count))
            case 14..<16:
                // What a discarded range reads as is nobody's promise, so it is written again.
                let (first, bytes) = widened(start, count)
                noteZeroes(first, bytes)
                commands.append("discard \(first) \(bytes)")
                commands.append(Bool.random(using: &random) ? write(first, bytes) : zero(first, bytes))
            case 16: commands.append("flush")
            default: commands.append("read -v \(start) \(min(count, 48))")
            }
        }
        steps.append(.session(commands, firstBy: Bool.random(using: &random) ? .ours : .qemu))
    }

    private mutating func addGrowth() {
        let limit = finalSizeBytes < 4 * gib ? min(4 * gib - 512, geometry.largestDiskBytes) : geometry.largestDiskBytes
        let wanted = finalSizeBytes + 512 * UInt64.random(in: 1...20_000, using: &random)
        guard wanted <= limit else { return }
        // Where the backing file is longer, zero clusters hide it.
        if base != nil { noteZeroes(finalSizeBytes, wanted - finalSizeBytes) }
        finalSizeBytes = wanted
        steps.append(.grow(to: wanted, firstBy: Bool.random(using: &random) ? .ours : .qemu))
    }

    private mutating func write(_ start: UInt64, _ count: UInt64) -> String {
        let (first, bytes) = widened(start, count)
        for cluster in clusters(first, bytes) { zeroClusters.remove(cluster) }
        pattern = pattern % 190 + 1
        return "write -P \(pattern)\(Int.random(in: 0..<10, using: &random) == 0 ? " -f" : "") \(first) \(bytes)"
    }

    private mutating func zero(_ start: UInt64, _ count: UInt64) -> String {
        let (first, bytes) = widened(start, count)
        noteZeroes(first, bytes)
        return "write -z\(Bool.random(using: &random) ? " -u" : "") \(first) \(bytes)"
    }

    private func clusters(_ start: UInt64, _ count: UInt64) -> ClosedRange<UInt64> {
        (start / geometry.clusterSizeBytes)...((start + count - 1) / geometry.clusterSizeBytes)
    }

    private mutating func noteZeroes(_ start: UInt64, _ count: UInt64) {
        if base != nil { zeroClusters.formUnion(clusters(start, count)) }
    }

    /// The range, and all of each cluster that it has a part of and that can be a zero cluster.
    private func widened(_ start: UInt64, _ count: UInt64) -> (start: UInt64, count: UInt64) {
        let clusters = clusters(start, count)
        var range = start..<(start + count)
        if zeroClusters.contains(clusters.lowerBound) {
            range = (clusters.lowerBound * geometry.clusterSizeBytes)..<range.upperBound
        }
        if zeroClusters.contains(clusters.upperBound) {
            let end = (clusters.upperBound + 1) * geometry.clusterSizeBytes
            range = range.lowerBound..<min(end, finalSizeBytes)
        }
        return (range.lowerBound, range.upperBound - range.lowerBound)
    }

    var description: String {
        var lines = ["seed \(seed): \(geometry.testDescription), \(sizeBytes) bytes, created by \(creators)"]
        if let base {
            lines.append(
                "over \(base.format) \(base.geometry.testDescription) of \(base.sizeBytes) bytes: \(base.commands)")
        }
        for step in steps { lines.append("\(step)") }
        return lines.joined(separator: "\n")
    }
}
