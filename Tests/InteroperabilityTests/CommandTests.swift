import Foundation
import TestSupport
import Testing

/// The same job given to a command of this program and to QEMU's of that name: same result, text, JSON and status. What
/// only one of them has, or does better, is said in `docs/image-tools.md`.
@Suite struct CommandTests {
    let bench: Workbench

    /// An overlay with data, zeroes and nothing, over a raw base that is shorter.
    init() throws {
        bench = try Workbench()
        try bench.createRaw("base.raw", 3 * mib)
        try bench.play(["write -P 1 0 100k", "write -P 2 1M 300k"], on: "base.raw", format: "raw", by: .qemu)
        try bench.create("image.qed", 5 * mib, over: ("base.raw", "raw"), by: .qemu)
        try bench.play(
            ["write -P 3 1100k 64k", "write -z 64k 64k", "write -P 4 4M 70000"], on: "image.qed", by: .qemu)
    }

    /// Both programs on copies of the same files, in directories of their own so that the names are the same. What is
    /// there afterwards is kept, as ours-NAME and qemu-NAME.
    private func eachInItsOwn(_ names: [String], _ body: (Party, Workbench) throws -> Void) throws {
        for party in Party.allCases {
            let own = try Workbench()
            for name in names {
                try FileManager.default.copyItem(atPath: bench.path(name), toPath: own.path(name))
            }
            try body(party, own)
            for name in try FileManager.default.contentsOfDirectory(atPath: own.directory.path) {
                try FileManager.default.copyItem(atPath: own.path(name), toPath: bench.path("\(party)-\(name)"))
            }
        }
    }

    private static let chain = ["base.raw", "image.qed"]

    @Test(
        "the same text and status",
        arguments: [
            ["info", "none.qed"], ["map", "image.qed"], ["map", "--output", "json", "image.qed"],
            ["map", "-s", "1M", "-l", "128k", "--output", "json", "image.qed"], ["map", "-s", "64k", "image.qed"],
            ["map", "-f", "raw", "--output", "json", "base.raw"], ["compare", "image.qed", "image.qed"],
            ["compare", "-f", "raw", "-F", "qed", "base.raw", "image.qed"],
            ["measure", "-f", "raw", "-O", "raw", "base.raw"], ["measure", "-O", "raw", "image.qed"],
            ["measure", "-O", "raw", "--output", "json", "image.qed"], ["measure", "-O", "raw", "--size", "1G"],
            ["measure", "-O", "raw", "--size", "1G", "--output", "json"],
        ])
    func sameText(arguments: [String]) throws {
        let ours = try bench.ours(arguments)
        let theirs = try bench.qemuImage(arguments)
        if arguments[0] == "measure", arguments.contains("json") {
            let mine = try bench.parsed(ours)
            for (key, value) in try bench.parsed(theirs) {
                #expect(mine[key] as? NSObject == value as? NSObject, "\(key)")
            }
        } else {
            #expect(ours.output == theirs.output)
        }
        #expect((ours.status == 0) == (theirs.status == 0))
    }

    @Test("info: every key of QEMU's JSON, and every line of its text", arguments: ["image.qed"])
    func info(name: String) throws {
        let mine = try bench.parsed(bench.ours("info", "--output", "json", name))
        let its = try bench.parsed(bench.qemuImage("info", "--output=json", name))
        for (key, value) in its { #expect(mine[key] as? NSObject == value as? NSObject, "\(key)") }
        let lines = Set(try bench.ours("info", name).output.split(separator: "\n"))
        for line in try bench.qemuImage("info", name).output.split(separator: "\n") {
            #expect(lines.contains(line), "\(line)")
        }
    }

    @Test("check: every key of QEMU's JSON, and its statuses", arguments: [0, 2, 3])
    func check(status: Int32) throws {
        try bench.create("plain.qed", 5 * mib, by: .ours)
        try bench.play(["write -P 1 0 1M", "write -P 1 4M 64k"], on: "plain.qed", by: .qemu)
        let editor = try ImageEditor(bench.path("plain.qed"))
        if status == 2 { try editor.setL2Entry(0, 3, 12345) }
        if status == 3 { try editor.setFileSize(try editor.fileSizeBytes + 128 * kib) }
        let ours = try bench.ours("check", "--output", "json", "plain.qed")
        let theirs = try bench.qemuImage("check", "--output=json", "plain.qed")
        #expect(ours.status == status && theirs.status == status)
        let mine = try bench.parsed(ours)
        for (key, value) in try bench.parsed(theirs) { #expect(mine[key] as? NSObject == value as? NSObject, "\(key)") }
        let lines = Set(try bench.ours("check", "plain.qed").output.split(separator: "\n"))
        for line in try bench.qemuImage("check", "plain.qed").output.split(separator: "\n")
        where !line.hasPrefix("ERROR") {
            #expect(lines.contains(line), "\(line)")
        }
    }

    @Test("create: the same file", arguments: Party.allCases)
    func create(party: Party) throws {
        // With each program's own words for it; `sameNewImage` does so for all geometries.
        try bench.require(.ours, "create", "--backing", "base.raw", "--backing-format", "raw", "ours.qed")
        try bench.require(.qemu, "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", "qemu.qed")
        #expect(try readFile(bench.path("ours.qed")) == readFile(bench.path("qemu.qed")))
        try bench.require(
            party,
            ["create"] + (party == .qemu ? ["-q", "-f", "qed"] : []) + [
                "-o", "cluster_size=4k,table_size=2", "small.qed", "1M",
            ])
        #expect(try ImageEditor(bench.path("small.qed")).clusterSizeBytes == 4096)
        #expect(try ImageEditor(bench.path("small.qed")).tableSizeClusters == 2)
    }

    @Test("resize: the same disk, and the same refusals")
    func resize() throws {
        try bench.create("plain.qed", 2 * mib + 512, by: .ours)
        try bench.play(["write -P 1 0 2097664"], on: "plain.qed", by: .ours)
        try eachInItsOwn(["plain.qed"]) { party, own in
            let format = party == .qemu ? ["-f", "qed"] : []
            for size in ["3M", "+1M", "+512"] {
                let result = try own.image(party, ["resize"] + format + ["plain.qed", size])
                #expect(result.status == 0 && result.output == "Image resized.\n")
            }
            let before = try readFile(own.path("plain.qed"))
            for size in ["1M", "-1M", "x", "64E"] {
                #expect(try own.image(party, ["resize"] + format + ["--", "plain.qed", size]).status != 0)
            }
            #expect(try readFile(own.path("plain.qed")) == before)
        }
        try bench.expectSame("ours-plain.qed", "qemu-plain.qed")
        #expect(try readFile(bench.path("ours-plain.qed")) == readFile(bench.path("qemu-plain.qed")))
    }

    @Test("commit: the same backing file")
    func commit() throws {
        try eachInItsOwn(Self.chain) { party, own in
            let format = party == .qemu ? ["-f", "qed"] : []
            let result = try own.image(party, ["commit"] + format + ["image.qed"])
            #expect(result.status == 0 && result.output == "Image committed.\n")
        }
        #expect(try readFile(bench.path("ours-base.raw")) == readFile(bench.path("qemu-base.raw")))
        // What they left of the overlays reads the same over either.
        for party in Party.allCases {
            try FileManager.default.removeItem(atPath: bench.path("base.raw"))
            try FileManager.default.copyItem(atPath: bench.path("\(party)-base.raw"), toPath: bench.path("base.raw"))
            try bench.expectSame("\(party)-image.qed", "base.raw", formats: ("qed", "raw"))
            try bench.expectSound("\(party)-image.qed")
        }
    }

    @Test("rebase: the same disk over the new backing file, and without any", arguments: ["other.qed", ""])
    func rebase(backing: String) throws {
        try bench.create("other.qed", 6 * mib, by: .ours)
        try bench.play(["write -P 1 0 64k", "write -P 9 2M 2M"], on: "other.qed", by: .ours)
        try bench.require(.ours, "convert", "image.qed", "content")
        try eachInItsOwn(Self.chain + ["other.qed"]) { party, own in
            let format = party == .qemu ? ["-f", "qed"] : []
            let backingFormat = backing.isEmpty ? [] : ["-F", "qed"]
            try own.require(party, ["rebase"] + format + ["-b", backing] + backingFormat + ["image.qed"])
            try FileManager.default.removeItem(atPath: own.path("base.raw"))
        }
        try FileManager.default.removeItem(atPath: bench.path("base.raw"))
        for party in Party.allCases {
            try bench.expectSame("\(party)-image.qed", "content", formats: ("qed", "raw"))
            try bench.expectSound("\(party)-image.qed")
        }
        let backingNames = try Party.allCases.map {
            try bench.parsed(bench.ours("info", "--json", "\($0)-image.qed"))["backing-filename"] as? String
        }
        #expect(backingNames[0] == backingNames[1])
    }

    @Test("flatten: as QEMU's rebase without a backing file")
    func flatten() throws {
        try bench.require(.ours, "convert", "image.qed", "content")
        try eachInItsOwn(Self.chain) { party, own in
            try own.require(
                party, party == .ours ? ["flatten", "image.qed"] : ["rebase", "-f", "qed", "-b", "", "image.qed"])
        }
        try FileManager.default.removeItem(atPath: bench.path("base.raw"))
        try bench.expectSame("ours-image.qed", "qemu-image.qed")
        try bench.expectSame("ours-image.qed", "content", formats: ("qed", "raw"))
        try bench.expectSound("ours-image.qed", "qemu-image.qed")
    }

    @Test("convert: the same contents in the same space", arguments: ["raw", "qed"])
    func convert(format: String) throws {
        for party in Party.allCases {
            let result = try bench.image(party, "convert", "-f", "qed", "-O", format, "image.qed", "\(party)")
            #expect(result.status == 0 && result.output == "")
        }
        try bench.expectSame("ours", "qemu", formats: (format, format))
        let sizes = try Party.allCases.map { try bench.fileSizeBytes("\($0)") }
        #expect(sizes[0] == sizes[1])
        let json = try bench.parsed(bench.ours("convert", "--json", "-O", format, "image.qed", "again"))
        #expect(Set(json.keys) == ["filename", "format", "virtual-size", "verified"])
        #expect(json["virtual-size"] as? UInt64 == 5 * mib)
        // What is there stays, unlike with QEMU.
        expectRefusal(try bench.ours("convert", "-O", format, "image.qed", "ours"), 3, naming: "ours: already exists")
    }

    /// Without qemu-io's lines about speed.
    @Test(
        "io: the same answers and statuses as qemu-io",
        arguments: [
            ["read -P 3 1100k 64k", "read -P 0 64k 64k", "length"], ["read -P 9 0 4k", "read -P 1 0 4k"],
            ["read -v 1126300 200"], ["read -v 4264304 40", "write -P 7 4264304 5", "read -v 4264300 16"],
            ["write -P 8 -f 0 512", "write -z 1M 512", "discard 2M 64k", "flush"], ["read 5M 4k"], ["frob"],
            ["write 4k"], ["read -P 1 0x1000 0x200"],
        ])
    func io(commands: [String]) throws {
        let answers = try Party.allCases.map { party in
            try FileManager.default.copyItem(atPath: bench.path("image.qed"), toPath: bench.path("\(party).qed"))
            let result = try bench.attempt(commands, on: "\(party).qed", by: party)
            let lines = result.output.split(separator: "\n").filter {
                $0.contains("bytes at offset") && !$0.hasPrefix("Pattern") || $0.dropFirst(8).hasPrefix(":  ")
            }
            return (status: result.status, lines: lines)
        }
        #expect((answers[0].status == 0) == (answers[1].status == 0))
        if answers[0].status == 0 { #expect(answers[0].lines == answers[1].lines) }
        try bench.expectSame("ours.qed", "qemu.qed")
    }

    @Test("bench: the same options, the same first words, the same disk")
    func benchCommand() throws {
        let options = ["-w", "-c", "100", "-d", "8", "-s", "4096", "-S", "12288", "-o", "8192", "--pattern", "7"]
        for party in Party.allCases {
            try bench.create("\(party)", mib, by: .ours)
            let format = party == .qemu ? ["-f", "qed"] : []
            let result = try bench.image(party, ["bench"] + options + format + ["\(party)"])
            #expect(result.status == 0 && result.output.contains("Run completed in "), "\(result.errors)")
        }
        try bench.expectSame("ours", "qemu")
        let json = try bench.parsed(bench.ours("bench", "--output", "json", "-c", "10", "ours"))
        #expect(json["requests"] as? Int == 10)
    }
}
