import Foundation
import TestSupport
import Testing

/// Random work on twins, by this program on one and by QEMU on the other, in turns: they stay the same disk.
///
/// `QED_UBLK_TRACES` says how many (40), `QED_UBLK_TRACE_SEED` where the seeds begin (1).
@Suite struct TraceTests {
    static let seeds: Range<UInt64> = {
        let environment = ProcessInfo.processInfo.environment
        let count = environment["QED_UBLK_TRACES"].flatMap { UInt64($0) } ?? 40
        let first = environment["QED_UBLK_TRACE_SEED"].flatMap { UInt64($0) } ?? 1
        return first..<(first + count)
    }()

    static let twins = ["first", "second"]

    @Test("the same bytes, and the same verdict", arguments: seeds)
    func twins(seed: UInt64) throws {
        let trace = Trace(seed: seed)
        let bench = try Workbench()
        try create(trace, bench)
        var size = trace.sizeBytes
        for step in trace.steps {
            switch step {
            case .session(let commands, let firstBy):
                let answers = try [firstBy, firstBy.other].enumerated().map { index, party in
                    let result = try bench.attempt(commands, on: Self.twins[index], by: party)
                    #expect(result.status == 0, "\(party): \(result.output)\(result.errors)\n\(trace)")
                    return dumps(result.output)
                }
                #expect(answers[0] == answers[1], "\(trace)")
            case .grow(let newSize, let firstBy):
                for (index, party) in [firstBy, firstBy.other].enumerated() {
                    try grow(Self.twins[index], from: size, to: newSize, by: party, trace, bench)
                }
                size = newSize
            }
        }
        try judge(trace, bench)
    }

    private func create(_ trace: Trace, _ bench: Workbench) throws {
        if let base = trace.base {
            try bench.create("base", base.sizeBytes, base.geometry, as: base.format, by: trace.creators.1)
            try bench.play(base.commands, on: "base", format: base.format, by: trace.creators.0)
        }
        let backing = trace.base.map { (name: "base", format: $0.format) }
        try bench.create("first", trace.sizeBytes, trace.geometry, over: backing, by: trace.creators.0)
        try bench.create("second", trace.sizeBytes, trace.geometry, over: backing, by: trace.creators.1)
    }

    private func grow(
        _ name: String, from oldSize: UInt64, to newSize: UInt64, by party: Party, _ trace: Trace, _ bench: Workbench
    ) throws {
        if party == .qemu {
            let result = try bench.qemuImage("resize", "-q", "-f", "qed", name, "\(newSize)")
            if result.status == 0 { return }
            // It refuses where a longer backing file would come to light.
            #expect((trace.base?.sizeBytes ?? 0) > oldSize - 512, "\(result.errors)\n\(trace)")
        }
        try bench.require(.ours, "resize", "-q", name, "\(newSize)")
    }

    /// The lines of `read -v`.
    private func dumps(_ output: String) -> [Substring] {
        output.split(separator: "\n").filter { $0.dropFirst(8).hasPrefix(":  ") }
    }

    private func judge(_ trace: Trace, _ bench: Workbench) throws {
        let formats = ["-f", "qed", "-F", "qed", "first", "second"]
        let ours = try bench.ours(["compare"] + formats)
        #expect(ours.status == 0, "\(ours.output)\(ours.errors)\n\(trace)")
        if trace.finalSizeBytes < 4 * gib {
            let theirs = try bench.qemuImage(["compare"] + formats)
            #expect(theirs.status == 0, "\(theirs.output)\(theirs.errors)\n\(trace)")
            // Of the last sector QEMU tells the part that a raw file lacks; here an extent is whole sectors.
            guard trace.base.map({ $0.sizeBytes % 512 == 0 }) ?? true else { return try judgeStructure(trace, bench) }
            let maps = try Party.allCases.map { try bench.image($0, "map", "--output", "json", "-f", "qed", "first") }
            #expect(maps[0].output == maps[1].output, "\(trace)")
        } else {
            // QEMU's compare and map abort on such disks; its convert does not.
            for name in Self.twins {
                try bench.require(.qemu, "convert", "-f", "qed", "-O", "raw", name, "raw")
                let result = try bench.ours("compare", "-f", "raw", "-F", "qed", "raw", name)
                #expect(result.status == 0, "\(result.output)\(result.errors)\n\(trace)")
            }
        }
        try judgeStructure(trace, bench)
    }

    private func judgeStructure(_ trace: Trace, _ bench: Workbench) throws {
        for name in Self.twins {
            let mine = try bench.ours("check", "--output", "json", name)
            #expect(mine.status == 0, "\(name): \(mine.output)\(mine.errors)\n\(trace)")
            let verdict = try bench.parsed(mine)
            let theirs = try bench.parsed(bench.qemuImage("check", "-f", "qed", "--output=json", name))
            #expect(theirs["leaks"] as? UInt64 ?? 0 == (try bench.falseLeaks(name)), "\(name): \(theirs)\n\(trace)")
            for (key, value) in theirs where key != "leaks" {
                #expect(verdict[key] as? NSObject == value as? NSObject, "\(name): \(key)\n\(trace)")
            }
        }
    }
}
