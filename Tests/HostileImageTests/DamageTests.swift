import Foundation
import TestSupport
import Testing

/// Random damage: our verdict is the truth, and QEMU's but for its known miscount; each understands the other's
/// repairs.
///
/// `QED_DAMAGE_IMAGES` says how many images, `QED_DAMAGE_SEED` the first seed: `make damage` sets both. A failure names
/// its seed.
@Suite struct DamageTests {
    static let seeds: [UInt64] = {
        func number(_ name: String) -> UInt64? { ProcessInfo.processInfo.environment[name].flatMap { UInt64($0) } }
        let first = number("QED_DAMAGE_SEED") ?? 1
        return Array(first..<(first + (number("QED_DAMAGE_IMAGES") ?? 180)))
    }()

    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    @Test("damage", arguments: seeds)
    func damage(seed: UInt64) throws {
        let damaged = DamagedImage(seed: seed)
        let damage = Comment(rawValue: "seed \(seed): \(damaged.damage.joined(separator: "; "))")
        let path = directory.path("image.qed")
        try damaged.image.write(to: path)
        let before = try FileContent(of: path)
        let truth = try StructureTruth(of: path)
        let ours = try OurVerdict("image.qed", in: directory)
        #expect(ours.verdict == (try QEMUVerdict(of: path)), damage)
        #expect(ours.agrees(with: truth), damage)
        #expect(ours.status == (truth.corruptions > 0 ? 2 : truth.leaks > 0 ? 3 : 0), damage)
        #expect(try FileContent(of: path) == before, damage)

        let theirs = directory.path("theirs.qed")
        try damaged.image.write(to: theirs)
        _ = try run(["qemu-img", "check", "-q", "-f", "qed", "-r", "all", theirs])
        let oursOfTheirs = try OurVerdict("theirs.qed", in: directory)
        #expect(oursOfTheirs.verdict == (try QEMUVerdict(of: theirs)), damage)
        #expect(oursOfTheirs.agrees(with: try StructureTruth(of: theirs)), damage)

        let repair = try OurVerdict("image.qed", repairing: true, in: directory)
        let after = try OurVerdict("image.qed", in: directory)
        #expect(repair.status == after.status && repair.verdict == after.verdict, damage)
        #expect(after.verdict == (try QEMUVerdict(of: path)), damage)
        #expect(after.agrees(with: try StructureTruth(of: path)), damage)
        // QEMU drops entries in tables that share their clusters too, where what it changes may be somebody's data.
        #expect(after.verdict.corruptions >= oursOfTheirs.verdict.corruptions, damage)
        #expect((after.verdict.corruptions == 0) == (oursOfTheirs.verdict.corruptions == 0), damage)
        #expect(after.verdict.leaks <= oursOfTheirs.verdict.leaks, damage)
        guard after.verdict.corruptions == 0 else {
            // Asked to, we separate what is shared.
            _ = try QedUblkProgram.runBounded(
                ["check", "-q", "-r", "all", "--force", "--repair-cross-links", "image.qed"], in: directory)
            #expect(try StructureTruth(of: path).corruptions == 0, damage)
            #expect(try QEMUVerdict(of: path).corruptions == 0, damage)
            return
        }
        // Both have dropped the same, and nothing else.
        let comparison = try QedUblkProgram.runBounded(["compare", "-q", "image.qed", "theirs.qed"], in: directory)
        #expect(comparison.status == 0, damage)
        if after.verdict.leaks == 0 { #expect(try ImageEditor(path).features & 2 == 0, damage) }
    }

    /// Otherwise these tests would prove little.
    @Test func theDamageIsOfEveryKind() throws {
        var counts = (sound: 0, leaky: 0, corrupt: 0)
        for seed in 1...180 as ClosedRange<UInt64> {
            try DamagedImage(seed: seed).image.write(to: directory.path("image.qed"))
            let truth = try StructureTruth(of: directory.path("image.qed"))
            if truth.corruptions > 0 {
                counts.corrupt += 1
            } else if truth.leaks > 0 {
                counts.leaky += 1
            } else {
                counts.sound += 1
            }
        }
        #expect(counts.sound > 20 && counts.leaky > 30 && counts.corrupt > 60, "\(counts)")
    }

    /// The image that stays damaged is not written; the one that does not is.
    @Test("damage: what may be written", arguments: seeds.prefix(90))
    func writing(seed: UInt64) throws {
        let damaged = DamagedImage(seed: seed)
        guard damaged.image.header.imageSize >= 4096 else { return }
        let path = directory.path("image.qed")
        try damaged.image.write(to: path)
        let before = try FileContent(of: path)
        let truth = try StructureTruth(of: path)
        let isWritten = try QedUblkProgram.runBounded(
            ["io", "image.qed", "write -P 9 0 4k", "read -P 9 0 4k"], in: directory)
        let damage = Comment(rawValue: "seed \(seed): \(damaged.damage.joined(separator: "; ")) \(isWritten.errors)")
        let needsCheck = damaged.image.header.features & 2 != 0
        if needsCheck && damaged.image.header.autoclearFeatures >> 63 != 0 {
            // Nobody can tell where the log is that the bits stand for.
            #expect(isWritten.status == 3, damage)
            #expect(try FileContent(of: path) == before, damage)
            return
        }
        if truth.corruptions == 0 { #expect(isWritten.status == 0, damage) }
        if truth.corruptions > 0 && !needsCheck { #expect(isWritten.status == 2, damage) }
        if isWritten.status == 0 {
            #expect(try StructureTruth(of: path).corruptions == 0, damage)
        } else {
            #expect(isWritten.status == 2, damage)
            #expect(try FileContent(of: path) == before, damage)
        }
    }
}

/// What our `check` says.
private struct OurVerdict {
    let status: Int32
    let verdict: QEMUVerdict

    init(_ name: String, repairing: Bool = false, in directory: TemporaryDirectory) throws {
        let result = try QedUblkProgram.runBounded(
            // Random bits can say that a dead server has left a log, which then has to be given up.
            ["check", "--output", "json"] + (repairing ? ["-r", "all", "--force"] : []) + [name], in: directory)
        guard let object = try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any] else {
            throw CommandFailure(command: "check \(name)", result: result)
        }
        func count(_ key: String) -> UInt64 { object[key] as? UInt64 ?? 0 }
        status = result.status
        verdict = QEMUVerdict(
            corruptions: count("corruptions"), leaks: count("leaks"), allocated: count("allocated-clusters"),
            fragmented: count("fragmented-clusters"), errors: count("check-errors"))
    }

    func agrees(with truth: StructureTruth) -> Bool {
        verdict.errors == 0 && verdict.corruptions == truth.corruptions && verdict.leaks == truth.leaks
            && verdict.allocated == truth.allocated
    }
}
