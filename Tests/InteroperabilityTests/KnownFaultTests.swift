import Foundation
import TestSupport
import Testing

/// What the installed QEMU gets wrong with QED, and that this program gets it right. Other tests go around these
/// faults; a version that no longer has one says so here, and the way around it can go.
@Suite struct KnownFaultTests {
    let bench: Workbench

    init() throws { bench = try Workbench() }

    /// Either QEMU does as it always has, or as it should.
    private func expectFaulty(
        _ fault: String, _ isFaulty: Bool, orRight isRight: Bool, _ result: CommandResult,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        #expect(
            isFaulty != isRight, "neither known nor right: \(fault): \(result.status) \(result.output)\(result.errors)",
            sourceLocation: sourceLocation)
        if isRight { print("this QEMU has lost a fault: \(fault)") }
    }

    @Test func aPartOfAZeroClusterOverABackingFile() throws {
        try bench.createRaw("base", mib)
        try bench.play(["write -P 10 0 1M"], on: "base", format: "raw", by: .qemu)
        for party in Party.allCases {
            try bench.create("\(party)", nil, over: ("base", "raw"), by: party)
            try bench.play(["write -z 64k 64k", "write -P 20 66560 512"], on: "\(party)", by: party)
        }
        try bench.expectReads(["read -P 0 64k 1024", "read -P 20 66560 512", "read -P 0 67072 64000"], of: "ours")
        let result = try bench.attempt(["read -P 0 64k 1024"], on: "qemu", by: .ours)
        let asBase = try bench.attempt(["read -P 10 64k 1024"], on: "qemu", by: .ours)
        expectFaulty(
            "it fills the rest of the cluster from the backing file", asBase.status == 0,
            orRight: result.status == 0, result)
    }

    @Test func tablesOfOneCluster() throws {
        let result = try bench.qemuImage("create", "-q", "-f", "qed", "-o", "table_size=1", "theirs", "1M")
        if result.status == 0 {
            let info = try bench.qemuImage("info", "theirs")
            expectFaulty(
                "it cannot open what it creates", info.errors.contains("table offset is invalid"),
                orRight: info.status == 0, info)
            #expect(try bench.ours("info", "theirs").output.contains("note: QEMU cannot open"))
        }
        expectRefusal(try bench.ours("create", "--table-size", "1", "ours", "1M"), 64, naming: "QEMU cannot open")
    }

    @Test func leaksThatAreNone() throws {
        let small = Geometry(clusterSizeBytes: 4 * kib, tableSizeClusters: 4)
        try bench.create("image", 32 * mib, small, by: .ours)
        try bench.play(["write -P 1 0 17M"], on: "image", by: .ours)
        #expect(try bench.ours("check", "image").status == 0)
        let result = try bench.qemuImage("check", "-f", "qed", "image")
        expectFaulty(
            "it counts a leak for each 4095 clusters",
            result.status == 3 && result.output.contains("1 leaked clusters were found"), orRight: result.status == 0,
            result)
    }

    @Test func aWriteThatDestroysItsNeighbour() throws {
        let geometry = Geometry(clusterSizeBytes: 4 * kib, tableSizeClusters: 16)
        for party in Party.allCases {
            try bench.create("\(party)", 64 * mib, geometry, by: .ours)
            try bench.play(["write -P 1 16M 4k", "write -z 0 16M"], on: "\(party)", by: party)
        }
        try bench.expectReads(["read -P 0 0 16M", "read -P 1 16M 4k"], of: "ours")
        let result = try bench.attempt(["read -P 1 16M 4k"], on: "qemu", by: .ours)
        let asZero = try bench.attempt(["read -P 0 16M 4k"], on: "qemu", by: .ours)
        expectFaulty(
            "zeroes over 16 MiB zero the cluster behind them", asZero.status == 0, orRight: result.status == 0, result)
    }

    @Test func uniformRangesOf4GiB() throws {
        let geometry = Geometry(clusterSizeBytes: 64 * kib, tableSizeClusters: 16)
        try bench.create("image", 16 * gib, geometry, by: .ours)
        try bench.play(["write -P 1 8G 64k"], on: "image", by: .ours)
        let map = try bench.ours("map", "image")
        #expect(map.status == 0 && map.output.contains("0x200000000"))
        let result = try bench.qemuImage("map", "-f", "qed", "image")
        expectFaulty("its map aborts", result.status == -6, orRight: result.output == map.output, result)
    }

    @Test func leaksThatNoRepairGivesBack() throws {
        try bench.create("image", mib, by: .ours)
        try bench.play(["write -P 1 0 64k"], on: "image", by: .ours)
        try ImageEditor(bench.path("image")).setFileSize(try bench.fileSizeBytes("image") + 5 << 16)
        let result = try bench.qemuImage("check", "-r", "leaks", "-f", "qed", "image")
        expectFaulty("its repair keeps leaks", result.status == 3, orRight: result.status == 0, result)
        #expect(try bench.ours("check", "-r", "leaks", "image").status == 0)
        try bench.expectSound("image")
    }

    @Test func theMarkOfAnUncleanEnd() throws {
        try bench.create("image", mib, by: .ours)
        try ImageEditor(bench.path("image")).setFeatures(2)
        #expect(try bench.ours("info", "image").output.contains("need check: yes"))
        let result = try bench.qemuImage("info", "--output=json", "image")
        let flag = try bench.parsed(result)["dirty-flag"] as? Bool
        expectFaulty("its info never shows NEED_CHECK", flag == false, orRight: flag == true, result)
    }

    @Test func crossLinksBehindAClearedMark() throws {
        try bench.create("image", mib, by: .ours)
        try bench.play(["write -P 1 0 128k"], on: "image", by: .ours)
        let editor = try ImageEditor(bench.path("image"))
        try editor.setL2Entry(0, 1, try editor.l2Entry(0, 0))
        try editor.setFeatures(2)
        expectRefusal(try bench.attempt(["write -P 2 0 4k"], on: "image", by: .ours), 2, naming: "image")
        #expect(try editor.features == 2)
        let result = try bench.attempt(["write -P 2 0 4k"], on: "image", by: .qemu)
        expectFaulty(
            "it writes through cross-links, and clears the mark", try editor.features == 0 && result.status == 0,
            orRight: result.status != 0, result)
    }

    @Test func aHeaderOfNoClusters() throws {
        try bench.create("image", mib, by: .ours)
        var bytes = try readFile(bench.path("image"))
        bytes[12] = 0
        try writeFile(bench.path("image"), bytes)
        expectRefusal(try bench.ours("info", "image"), 2, naming: "image")
        let result = try bench.qemuImage("info", "image")
        expectFaulty("it opens it", result.status == 0, orRight: result.status == 1, result)
    }

    @Test func aBackingFilesNameThatDoesNotFit() throws {
        let name = "./" + String(repeating: "x/../", count: 817) + "base"
        try bench.directory.makeDirectory("x")
        try bench.createRaw("base", mib)
        expectRefusal(
            try bench.ours(
                "create", "--cluster-size", "4K", "--backing", name, "--backing-format", "raw", "ours"), 64,
            naming: "ours")
        let created = try bench.qemuImage(
            "create", "-q", "-f", "qed", "-o", "cluster_size=4096", "-b", name, "-F", "raw", "theirs", "1M")
        let result = try bench.qemuImage("info", "theirs")
        expectFaulty(
            "it creates an image that it cannot open", created.status == 0 && result.status == 1,
            orRight: created.status != 0, result)
    }

    @Test func growthOverALongerBackingFile() throws {
        try bench.createRaw("base", 2 * mib)
        try bench.play(["write -P 10 0 2M"], on: "base", format: "raw", by: .qemu)
        for party in Party.allCases { try bench.create("\(party)", mib, over: ("base", "raw"), by: party) }
        try bench.require(.ours, "resize", "-q", "ours", "3M")
        try bench.expectReads(["read -P 10 0 1M", "read -P 0 1M 2M"], of: "ours")
        try bench.expectSound("ours")
        let result = try bench.qemuImage("resize", "-q", "-f", "qed", "qemu", "3M")
        let zeroes = try bench.attempt(["read -P 0 1M 2M"], on: "qemu", by: .ours)
        expectFaulty(
            "it refuses to grow it", result.status == 1 && result.errors.contains("not support"),
            orRight: result.status == 0 && zeroes.status == 0, result)
    }

    @Test func growthOverWhatAnEarlierEndLeft() throws {
        for party in Party.allCases {
            try bench.create("\(party)", 4 * mib, by: .ours)
            try bench.play(["write -P 5 0 4M"], on: "\(party)", by: .ours)
            // The disk ends at 1 MiB from now on, and its tables do not.
            try ImageEditor(bench.path("\(party)")).setWord(mib, at: 48)
        }
        try bench.require(.ours, "resize", "-q", "ours", "4M")
        try bench.expectReads(["read -P 5 0 1M", "read -P 0 1M 3M"], of: "ours")
        try bench.require(.qemu, "resize", "-q", "-f", "qed", "qemu", "4M")
        let stale = try bench.attempt(["read -P 5 1M 3M"], on: "qemu", by: .ours)
        let zeroes = try bench.attempt(["read -P 0 1M 3M"], on: "qemu", by: .ours)
        expectFaulty("it shows what was there", stale.status == 0, orRight: zeroes.status == 0, stale)
    }

    @Test func whatDDSkipsIsTakenOffItsCount() throws {
        try bench.create("image", mib, by: .ours)
        let result = try bench.qemuImage(
            "dd", "-f", "qed", "-O", "raw", "bs=4096", "skip=3", "count=10", "if=image", "of=out")
        let size = try bench.fileSizeBytes("out")
        expectFaulty("its dd takes skip off count", size == 7 * 4096, orRight: size == 10 * 4096, result)
    }
}
