import Foundation
import TestSupport
import Testing

/// Every command on every hostile image, with bounds on memory and processor time (`QedUblkProgram.runBounded`).
///
/// What may not be written must be the same to the byte afterwards, whatever was asked for.
@Suite struct HostileImageTests {
    static let images = HeaderRows.all + EntryRows.all + BackingRows.all

    let directory: TemporaryDirectory
    var path: String { directory.path("image.qed") }

    init() throws { directory = try TemporaryDirectory() }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    // MARK: The commands

    @Test("info", arguments: images)
    func info(_ hostile: HostileImage) throws {
        try hostile.image.write(to: path)
        let before = try FileContent(of: path)
        let result = try ours("info", "image.qed")
        if let fault = hostile.expected.fault {
            expectRefusal(result, 2, fault)
        } else {
            #expect(result.status == 0 && result.errors == "")
            #expect(result.output.contains("virtual size: "))
        }
        #expect(try FileContent(of: path) == before)
    }

    @Test("read-only", arguments: images)
    func readOnly(_ hostile: HostileImage) throws {
        let expected = hostile.expected
        try hostile.image.write(to: path)
        let before = try FileContent(of: path)
        let result = try ours(["io", "image.qed", "length"] + reads(expected.reads))
        // The same without the page cache, as a device is served.
        let direct = try ours("bench", "-c", "1", "-s", "512", "-t", "none", "image.qed")
        if let fault = expected.fault {
            expectRefusal(result, 2, fault)
            expectRefusal(direct, 2, fault)
        } else {
            expectSuccess(result)
            if !expected.reads.isEmpty { expectSuccess(direct) }
        }
        for offset in expected.failingReads {
            expectRefusal(
                try ours("io", "image.qed", "read \(offset) 64k"), 1,
                "read at offset \(offset) failed: Input/output error")
            // Together with what lies before it.
            if offset >= 65536 { #expect(try ours("io", "image.qed", "read \(offset - 65536) 128k").status == 1) }
        }
        #expect(try FileContent(of: path) == before)
    }

    @Test("writing", arguments: images)
    func writing(_ hostile: HostileImage) throws {
        let expected = hostile.expected
        try hostile.image.write(to: path)
        let before = try FileContent(of: path)
        let result = try ours(
            ["io", "image.qed"] + expected.writes.map { "write -P 77 \($0) 4k" } + ["flush"])
        if let reason = expected.fault ?? expected.whyNotWritten {
            expectRefusal(result, 2, reason)
            expectRefusal(try ours("bench", "-w", "-c", "1", "-s", "512", "-t", "none", "image.qed"), 2, reason)
            expectRefusal(try ours("resize", "image.qed", "+1G"), 2, reason)
            expectRefusal(try ours("compact", "image.qed"), 2, reason)
            #expect(try FileContent(of: path) == before)
            return
        }
        expectSuccess(result)
        let untouched = expected.reads.filter { !expected.writes.contains($0.key) }
        expectSuccess(
            try ours(
                ["io", "image.qed"] + expected.writes.map { "read -P 77 \($0) 4k" } + reads(untouched) + ["length"]))
        #expect(try verdict(try ours("check", "--output", "json", "image.qed")).corruptions == 0)
        guard expected.isReadByQEMU else { return }
        #expect(try qemuVerdict().corruptions == 0)
        try require(
            ["qemu-io", "-r", "-f", "qed", path] + expected.writes.flatMap { ["-c", "read -P 77 \($0) 4k"] }
                + ["-c", "length"])
    }

    @Test("check", arguments: images)
    func check(_ hostile: HostileImage) throws {
        let expected = hostile.expected
        try hostile.image.write(to: path)
        let before = try FileContent(of: path)
        let result = try ours("check", "--output", "json", "image.qed")
        if let fault = expected.fault {
            expectRefusal(result, 1, fault)
        } else {
            #expect(result.status == expected.check.status)
            #expect(try verdict(result) == counts(expected.check))
            if expected.isReadByQEMU { #expect(try qemuVerdict() == counts(expected.check)) }
            let text = try ours("check", "image.qed")
            #expect(text.status == expected.check.status && text.errors == "")
        }
        #expect(try FileContent(of: path) == before)
    }

    @Test("repair", arguments: images)
    func repair(_ hostile: HostileImage) throws {
        let expected = hostile.expected
        try hostile.image.write(to: path)
        let before = try FileContent(of: path)
        let result = try ours("check", "-r", "all", "--output", "json", "image.qed")
        if let fault = expected.fault {
            expectRefusal(result, 1, fault)
            #expect(try FileContent(of: path) == before)
            return
        }
        let after = expected.repaired ?? expected.check
        #expect(result.status == after.status, "\(result.output)\(result.errors)")
        #expect(try verdict(result) == counts(after))
        #expect(try verdict(try ours("check", "--output", "json", "image.qed")) == counts(after))
        if expected.isReadByQEMU { #expect(try qemuVerdict() == counts(after)) }
        expectSuccess(
            try ours(["io", "image.qed", "length"] + reads(expected.reads) + reads(expected.repairedReads)))
        // What was only shared is now separate, and can be written.
        guard case .corrupt = after else { return }
        #expect(try FileContent(of: path) == before)
        #expect(try ours("check", "-q", "-r", "all", "--repair-cross-links", "image.qed").status != 2)
        expectSuccess(try ours(["io", "image.qed"] + expected.writes.map { "write -P 77 \($0) 4k" }))
        #expect(try verdict(try ours("check", "--output", "json", "image.qed")).corruptions == 0)
        #expect(try qemuVerdict().corruptions == 0)
    }

    // MARK: Expectations

    private func ours(_ arguments: [String]) throws -> CommandResult {
        try QedUblkProgram.runBounded(arguments, in: directory)
    }

    private func reads(_ expected: [UInt64: UInt8]) -> [String] {
        expected.sorted { $0.key < $1.key }.map { "read -P \($0.value) \($0.key) 64k" }
    }

    private struct Counts: Equatable {
        var corruptions: UInt64
        var leaks: UInt64
    }

    private func counts(_ verdict: Verdict) -> Counts {
        switch verdict {
        case .sound: Counts(corruptions: 0, leaks: 0)
        case .leaks(let leaks): Counts(corruptions: 0, leaks: leaks)
        case .corrupt(let corruptions, let leaks): Counts(corruptions: corruptions, leaks: leaks)
        }
    }

    private func verdict(_ result: CommandResult) throws -> Counts {
        let object = try #require(
            try JSONSerialization.jsonObject(with: Data(result.output.utf8)) as? [String: Any],
            "\(result.errors)")
        #expect(object["check-errors"] as? Int == 0)
        return Counts(corruptions: object["corruptions"] as? UInt64 ?? 0, leaks: object["leaks"] as? UInt64 ?? 0)
    }

    private func qemuVerdict() throws -> Counts {
        let verdict = try QEMUVerdict(of: path)
        #expect(verdict.errors == 0)
        return Counts(corruptions: verdict.corruptions, leaks: verdict.leaks)
    }
}

/// One sentence that says `reason`, on standard error alone.
func expectRefusal(
    _ result: CommandResult, _ status: Int32, _ reason: String, sourceLocation: SourceLocation = #_sourceLocation
) {
    #expect(result.status == status, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
    #expect(result.output == "", sourceLocation: sourceLocation)
    #expect(result.errors.hasPrefix("qed-ublk: "), sourceLocation: sourceLocation)
    #expect(result.errors.split(separator: "\n").count == 1, "\(result.errors)", sourceLocation: sourceLocation)
    #expect(
        reason.isEmpty || result.errors.contains(reason), "\(result.errors)", sourceLocation: sourceLocation)
}

func expectSuccess(_ result: CommandResult, sourceLocation: SourceLocation = #_sourceLocation) {
    #expect(result.status == 0, "\(result.output)\(result.errors)", sourceLocation: sourceLocation)
    #expect(result.errors == "", sourceLocation: sourceLocation)
}
