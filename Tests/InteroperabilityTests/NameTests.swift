import Foundation
import TestSupport
import Testing

/// Names of files that could mean something else.
@Suite struct NameTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    @Test("iotest 126: colons", arguments: Party.allCases, ["raw", "qed"])
    func colons(_ creator: Party, baseFormat: String) throws {
        // QEMU takes what comes before a colon for a protocol, unless there is a slash before it.
        try bench.create("./base:1", mib, .standard, as: baseFormat, by: creator)
        try bench.play(["write -P 5 0 4k"], on: "./base:1", format: baseFormat, by: creator)
        // Ours makes of the name one that QEMU takes for a file.
        try bench.create("./top:2", nil, over: (creator == .ours ? "base:1" : "./base:1", baseFormat), by: creator)
        try bench.expectReads(["read -P 5 0 4k", "read -P 0 4k 4k"], of: "./top:2")
        #expect(try bench.ours("io", "top:2", "read -P 5 0 4k").status == 0)
        #expect(try bench.ours("info", "top:2").output.contains("backing file: ./base:1\n"))
        for party in Party.allCases {
            try bench.play(["write -P 6 8k 4k"], on: "./top:2", by: party)
        }
        try bench.expectReads(["read -P 6 8k 4k"], of: "./top:2")
        try bench.expectSound("./top:2")
        try bench.require(.ours, "convert", "-O", "qed", "top:2", "copy:3")
        try bench.expectReads(["read -P 5 0 4k", "read -P 6 8k 4k"], of: "./copy:3")
    }

    @Test(
        "names that QEMU would take for protocols, found in an image",
        arguments: ["nbd://localhost:1/x", "json:{}", "file:base", "a:b.raw", "fat:rw:/tmp"])
    func protocols(name: String) throws {
        try bench.create("base", mib, by: .ours)
        try bench.create("image", nil, over: ("base", "qed"), by: .ours)
        try bench.require(.qemu, "rebase", "-u", "-f", "qed", "-b", name, "-F", "qed", "image")
        let before = try bench.directory.contents()
        expectRefusal(try bench.ours("io", "image", "read 0 4k"), 2, naming: name)
        expectRefusal(try bench.ours("info", "--backing-chain", "image"), 2, naming: name)
        #expect(try bench.ours("info", "image").status == 0)
        #expect(try bench.directory.contents() == before)
    }

    @Test("spaces, commas, and what a terminal would obey", arguments: Party.allCases)
    func oddNames(_ creator: Party) throws {
        let base = "a base, with=commas\u{1b}[31m é"
        try bench.create("./\(base)", mib, by: .ours)
        try bench.play(["write -P 5 0 4k"], on: "./\(base)", by: .ours)
        try bench.create("./top", nil, over: ("./\(base)", "qed"), by: creator)
        try bench.expectReads(["read -P 5 0 4k"], of: "./top")
        #expect(try bench.ours("info", "top").output.contains("a base, with=commas\\u{1b}[31m é"))
    }

    @Test("a symbolic link: relative names start at its directory", arguments: Party.allCases)
    func links(_ creator: Party) throws {
        for directory in ["real", "links"] { try bench.directory.makeDirectory(directory) }
        for (directory, pattern) in [("real", 1), ("links", 2)] {
            try bench.create("\(directory)/base", mib, by: creator)
            try bench.play(["write -P \(pattern) 0 4k"], on: "\(directory)/base", by: creator)
        }
        try bench.create("real/image", nil, over: ("base", "qed"), by: creator)
        try FileManager.default.createSymbolicLink(
            atPath: bench.path("links/image"), withDestinationPath: "../real/image")
        try bench.expectReads(["read -P 1 0 4k"], of: "real/image")
        try bench.expectReads(["read -P 2 0 4k"], of: "links/image")
    }
}
