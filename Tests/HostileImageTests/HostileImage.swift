import TestSupport
import Testing

/// An image that is made to hurt, and what every command must make of it.
struct HostileImage: Sendable, CustomTestStringConvertible {
    /// Its row in the list of hostile images (`HostileRows`).
    let row: Int
    let what: String
    let expected: Expectation
    let build: @Sendable (inout ImageBuilder) -> Void

    init(_ row: Int, _ what: String, _ expected: Expectation, _ build: @escaping @Sendable (inout ImageBuilder) -> Void) {
        self.row = row
        self.what = what
        self.expected = expected
        self.build = build
    }

    var testDescription: String { "row \(row): \(what)" }

    /// The specimen, hurt.
    var image: ImageBuilder {
        var image = ImageBuilder.specimen()
        build(&image)
        return image
    }
}

/// What a check finds.
enum Verdict: Equatable, Sendable {
    case sound
    case leaks(UInt64)
    case corrupt(UInt64, leaks: UInt64 = 0)

    /// Exit status of `check`, here as in QEMU.
    var status: Int32 {
        switch self {
        case .sound: 0
        case .leaks: 3
        case .corrupt: 2
        }
    }

    init(corruptions: UInt64, leaks: UInt64) {
        self = corruptions > 0 ? .corrupt(corruptions, leaks: leaks) : leaks > 0 ? .leaks(leaks) : .sound
    }
}

/// What the commands must do.
struct Expectation: Sendable {
    /// Set where every command refuses the file as no image that can be used: part of the sentence.
    var fault: String?
    /// Set where an image is served read-only, but not opened for writing: part of the sentence.
    var whyNotWritten: String?
    var check = Verdict.sound
    /// After `check -r all`.
    var repaired: Verdict?
    /// Guest offsets of 64 KiB each, and the byte that they are full of.
    var reads = Expectation.specimenReads
    /// Guest offsets where a read fails, because an entry cannot be right.
    var failingReads: [UInt64] = []
    /// What is read after the repair at offsets that are not in `reads`.
    var repairedReads: [UInt64: UInt8] = [:]
    /// Guest offsets at which 4 KiB are written.
    var writes: [UInt64] = [0, 100 << 20, 2 << 30 + 66048]
    /// Whether QEMU opens such an image at all, so that it can be asked.
    var isReadByQEMU = true

    static let specimenReads: [UInt64: UInt8] = [0: 1, 65536: 2, 131_072: 3, 1 << 30: 4, 524_288: 0, 200 << 20: 0]

    /// Exit status 2 (of check: 1), and nothing done.
    static func refused(_ fault: String) -> Expectation {
        Expectation(fault: fault)
    }

    /// Nothing is wrong with it, or nothing that matters.
    static func served(
        _ check: Verdict = .sound, repaired: Verdict? = nil, reads: [UInt64: UInt8] = specimenReads,
        writes: [UInt64]? = nil, isReadByQEMU: Bool = true
    ) -> Expectation {
        var expected = Expectation(check: check, repaired: repaired, reads: reads, isReadByQEMU: isReadByQEMU)
        if let writes { expected.writes = writes }
        return expected
    }

    /// Entries that name what cannot be a cluster: an I/O error where they are needed, no writing, dropped by a repair.
    static func invalid(
        _ corruptions: UInt64, leaks: UInt64 = 0, failing: [UInt64], repaired: Verdict,
        reads: [UInt64: UInt8] = specimenReads
    ) -> Expectation {
        Expectation(
            whyNotWritten: "\(corruptions) table entries point where no cluster can be; repair it",
            check: .corrupt(corruptions, leaks: leaks), repaired: repaired,
            reads: reads.filter { !failing.contains($0.key) }, failingReads: failing,
            repairedReads: Dictionary(uniqueKeysWithValues: failing.map { ($0, 0) }))
    }

    /// Clusters with several owners: no writing, and no repair without more being asked for.
    static func shared(
        _ clusters: UInt64, leaks: UInt64 = 0, unreadable: [UInt64] = [], reads: [UInt64: UInt8] = [:],
        failing: [UInt64] = []
    ) -> Expectation {
        Expectation(
            whyNotWritten: "clusters have more than one owner", check: .corrupt(clusters, leaks: leaks),
            repaired: .corrupt(clusters, leaks: leaks),
            reads: specimenReads.filter { !(unreadable + failing).contains($0.key) }
                .merging(reads) { _, new in new },
            failingReads: failing)
    }
}
