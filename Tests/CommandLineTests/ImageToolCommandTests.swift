import Foundation
import TestSupport
import Testing

/// Output and statuses of the image tools, beside those of QEMU's.
@Suite struct ImageToolCommandTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try require(["qemu-img", "create", "-q", "-f", "raw", "base.raw", "10M"], in: directory.path)
        try require(
            ["qemu-io", "-f", "raw", "base.raw", "-c", "write -P 1 0 100k", "-c", "write -P 2 5M 70000"],
            in: directory.path)
        try require(
            ["qemu-img", "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", "image.qed", "20M"],
            in: directory.path)
        try require(
            ["qemu-io", "-f", "qed", "image.qed", "-c", "write -P 3 1M 200k", "-c", "write -z 4M 64k"],
            in: directory.path)
    }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try run([try QedUblkProgram.path()] + arguments, in: directory.path)
    }

    private func theirs(_ arguments: String...) throws -> CommandResult {
        try run(["qemu-img"] + arguments, in: directory.path)
    }

    /// All of its requests are answered at once: it must not wait for the kernel then.
    @Test func benchReadsWhatWasNeverWritten() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "empty.qed", "64M"], in: directory.path)
        let result = try ours("bench", "-c", "1000", "-d", "8", "-t", "none", "empty.qed")
        #expect(result.status == 0)
        #expect(result.output.hasPrefix("Run completed in "))
    }

    @Test("a part of the map", arguments: ["18446744073709551615", "18446744073709551104", "20M", "21M"])
    func mapToTheEnd(length: String) throws {
        let rest = try ours("map", "--json", "-s", "1M", "image.qed")
        let result = try ours("map", "--json", "-s", "1M", "-l", length, "image.qed")
        #expect(
            result.status == 0 && result.output == rest.output && result.output.contains("\"start\": 1048576"), "\(result.errors)"
        )
    }

    private struct Change: Decodable {
        var start: Int
        var length: Int
        var data: Bool
    }

    /// Over a disk that is smaller, with clusters of another size, and beside what has not changed.
    @Test("what has changed since a file of the chain, and nothing else", arguments: ["image.qed", "base.raw", "middle.qed"])
    func mapOfChanges(since: String) throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", "image.qed", "-F", "qed", "middle.qed"], in: directory.path)
        try require(["qemu-io", "-f", "qed", "middle.qed", "-c", "write -P 7 8M 64k"], in: directory.path)
        try require(
            [
                "qemu-img", "create", "-q", "-f", "qed", "-b", "middle.qed", "-F", "qed", "-o", "cluster_size=4096", "top.qed",
                "24M",
            ], in: directory.path)
        try require(
            [
                "qemu-io", "-f", "qed", "top.qed", "-c", "write -P 8 5M 4k", "-c", "write -z 1M 64k", "-c", "write -P 9 22M 8k",
            ], in: directory.path)
        let result = try ours("map", "--json", "--since", since, "top.qed")
        #expect(result.status == 0, "\(result.errors)")
        let changes = try JSONDecoder().decode([Change].self, from: Data(result.output.utf8))
        // The old disk with the changes is the new one.
        let format = since == "base.raw" ? "raw" : "qed"
        try require(["qemu-img", "convert", "-f", format, "-O", "raw", since, "old.raw"], in: directory.path)
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", "top.qed", "new.raw"], in: directory.path)
        let new = try readFile(directory.path("new.raw"))
        var old = try readFile(directory.path("old.raw"))
        old += [UInt8](repeating: 0, count: new.count - old.count)
        for change in changes {
            let range = change.start..<change.start + change.length
            old.replaceSubrange(range, with: new[range])
        }
        #expect(old == new)
        if since == "middle.qed" {
            #expect(changes.reduce(0) { $0 + ($1.data ? $1.length : 0) } == 12 << 10)
            let table = try ours("map", "--since", since, "top.qed")
            #expect(table.output.contains("0x500000        0x1000 "), "\(table.output)")
            #expect(table.output.contains("0x100000        0x10000         -               zeros"), "\(table.output)")
        }
    }

    @Test func mapOfNoChanges() throws {
        let same = try ours("map", "--json", "--since", "image.qed", "image.qed")
        #expect(same.status == 0 && same.output == "[]\n", "\(same.output)\(same.errors)")
        try require(["qemu-img", "create", "-q", "-f", "qed", "other.qed", "1M"], in: directory.path)
        let other = try ours("map", "--since", "other.qed", "image.qed")
        #expect(other.status == 64 && other.errors.contains("other.qed: is none of the files that image.qed lies over"))
        #expect(other.output.isEmpty)
        #expect(try ours("map", "--since", "missing.qed", "image.qed").status == 4)
    }

    @Test func optionsOfQEMU() throws {
        let io = try ours("io", "-c", "read -P 3 1M 200k", "-c", "length", "image.qed")
        #expect(io.status == 0 && io.output.hasSuffix("\n") && io.output.contains("20971520"), "\(io.output)\(io.errors)")
        #expect(try ours("io", "image.qed", "flush -v").status == 64)
        let created = try ours(
            "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", "-o", "cluster_size=4k", "-o", "table_size=2", "top.qed",
            "30M")
        #expect(created.status == 0 && created.output == "", "\(created.errors)")
        let other = try ours(
            "create", "-o", "cluster_size=4k,table_size=2,backing_file=base.raw,backing_fmt=raw", "other.qed", "30M")
        #expect(other.status == 0, "\(other.errors)")
        #expect(try readFile(directory.path("top.qed")) == readFile(directory.path("other.qed")))
        #expect(try ours("create", "-f", "raw", "x", "1M").status == 64)
        let theirs = try theirs("info", "-f", "qed", "top.qed")
        #expect(theirs.output.contains("cluster_size: 4096") && theirs.output.contains("backing file: base.raw"))
    }

    /// Runs a line of the shell with the program as $0.
    private func shell(_ line: String) throws -> CommandResult {
        try run(["bash", "-c", "set -o pipefail; " + line, try QedUblkProgram.path()], in: directory.path)
    }

    @Test("a disk comes through a pipe", arguments: ["0", "513", "1M", "2097665", "40M"])
    func convertsStandardInput(_ size: String) throws {
        try require(["qemu-img", "create", "-q", "-f", "raw", "a.raw", "48M"], in: directory.path)
        try require(["qemu-io", "-f", "raw", "a.raw", "-c", "write -P 7 0 3M", "-c", "write -P 8 20M 70k"], in: directory.path)
        let result = try shell("truncate -s \(size) a.raw && cat a.raw | \"$0\" convert -f raw -O qed - copy.qed")
        #expect(result.status == 0, "\(result.errors)")
        let rounded = try shell(
            "truncate -s %512 a.raw && stat -c %s a.raw && \"$0\" info --json copy.qed | jq '.\"virtual-size\"'")
        let sizes = rounded.output.split(separator: "\n")
        #expect(sizes.count == 2 && sizes[0] == sizes[1], "\(rounded.output)")
        #expect(try theirs("check", "-f", "qed", "copy.qed").status == 0)
        #expect(try theirs("compare", "-f", "raw", "-F", "qed", "a.raw", "copy.qed").status == 0)
    }

    @Test func convertsWhatQEMUReads() throws {
        try require(["qemu-img", "convert", "-f", "qed", "-O", "qcow2", "-c", "image.qed", "a.qcow2"], in: directory.path)
        let result = try shell(
            "nbdcopy -- [ qemu-nbd -r -f qcow2 a.qcow2 ] - | \"$0\" convert -f raw -O qed - copy.qed")
        #expect(result.status == 0, "\(result.errors)")
        #expect(try theirs("compare", "-f", "qed", "-F", "qed", "image.qed", "copy.qed").status == 0)
        #expect(try theirs("check", "-f", "qed", "copy.qed").status == 0)
    }

    @Test("a pipe is read once, into a new image, or nothing is made")
    func refusesWhatAPipeCannotDo() throws {
        let before = try directory.contents().keys.sorted()
        for options in ["-O qed", "-f raw -O raw", "-f raw -O qed --verify", "-f raw -O qed -n"] {
            let result = try shell("\"$0\" convert \(options) - copy.qed </dev/null")
            #expect(result.status == 64, "\(options): \(result.errors)")
        }
        // Tables of two clusters of 4 KiB map 4 GiB.
        let long = try shell(
            "head -c 4294967297 /dev/zero | \"$0\" convert -f raw -O qed --cluster-size 4k --table-size 2 - copy.qed")
        #expect(
            long.errors.hasPrefix("qed-ublk: copy.qed: standard input does not end within 4294967296 bytes"), "\(long.errors)")
        let failing = try shell("\"$0\" convert -f raw -O qed - copy.qed <.")
        #expect(failing.status == 1)
        #expect(failing.errors.hasPrefix("qed-ublk: standard input: read at offset 0 failed: "), "\(failing.errors)")
        #expect(try directory.contents().keys.sorted() == before)
    }

    @Test func checkLooksLikeQEMU() throws {
        let sound = try ours("check", "image.qed")
        #expect(sound.status == 0)
        for line in try theirs("check", "image.qed").output.split(separator: "\n") {
            #expect(sound.output.contains(line), "\(line)")
        }
        let editor = try ImageEditor(directory.path("image.qed"))
        try editor.setFileSize(try editor.fileSizeBytes + 3 << 16)
        let leaky = try ours("check", "image.qed")
        #expect(leaky.status == 3)
        for line in try theirs("check", "image.qed").output.split(separator: "\n") {
            #expect(leaky.output.contains(line), "\(line)")
        }
        try editor.setL2Entry(0, 17, 12345)
        let corrupt = try ours("check", "image.qed")
        #expect(corrupt.status == 2)
        #expect(corrupt.output.contains("guest offsets 1114112 to 1179648"))
        for line in try theirs("check", "image.qed").output.split(separator: "\n") {
            #expect(corrupt.output.contains(line), "\(line)")
        }
        let json = try ours("check", "--output", "json", "image.qed")
        let object = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [String: Any])
        let oracle = try #require(
            try JSONSerialization.jsonObject(with: Data(theirs("check", "--output=json", "image.qed").output.utf8))
                as? [String: Any])
        for (key, value) in oracle { #expect(object[key] as? NSObject == value as? NSObject, "\(key)") }
        #expect(try ours("check", "-q", "image.qed").output == "")
        #expect(try ours("check", "-r", "leaks", "image.qed").status == 2)
        #expect(
            try ours("check", "-r", "all", "image.qed").output.contains("dropped: guest offsets 1114112 to 1179648"))
        #expect(try ours("check", "-r", "all", "image.qed").status == 3)
        #expect(try ours("compact", "image.qed").status == 0)
        #expect(try ours("check", "image.qed").status == 0)
        #expect(try theirs("check", "image.qed").status == 0)
    }

    @Test func crossLinksNameBothOwners() throws {
        let editor = try ImageEditor(directory.path("image.qed"))
        try editor.setL2Entry(0, 17, try editor.l2Entry(0, 16))
        let result = try ours("check", "image.qed")
        #expect(result.status == 2)
        #expect(result.output.contains("has 2 owners: guest offset 1048576, guest offset 1114112"))
        #expect(try ours("check", "-r", "all", "image.qed").status == 2)
        #expect(try ours("check", "--repair-cross-links", "image.qed").status == 64)
        #expect(try ours("check", "-r", "all", "--repair-cross-links", "image.qed").status == 3)
        #expect(try ours("compact", "image.qed").status == 0)
        #expect(try ours("check", "image.qed").status == 0)
    }

    @Test(
        "the same text as QEMU",
        arguments: [
            ["map", "image.qed"], ["map", "--output", "json", "image.qed"], ["map", "-f", "raw", "base.raw"],
            ["map", "-f", "raw", "--output", "json", "-s", "1M", "-l", "5M", "base.raw"],
            ["compare", "image.qed", "image.qed"], ["compare", "-f", "raw", "-F", "qed", "base.raw", "image.qed"],
            ["compare", "-s", "-f", "raw", "-F", "qed", "base.raw", "image.qed"],
            ["measure", "-O", "raw", "image.qed"],
        ])
    func sameText(arguments: [String]) throws {
        let ours = try run([try QedUblkProgram.path()] + arguments, in: directory.path)
        let theirs = try run(["qemu-img"] + arguments, in: directory.path)
        #expect(ours.output == theirs.output)
        #expect(ours.status == theirs.status)
    }

    @Test func infoShowsTheChain() throws {
        let json = try ours("info", "--backing-chain", "--output", "json", "image.qed")
        let members = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [[String: Any]])
        let oracle = try #require(
            try JSONSerialization.jsonObject(
                with: Data(theirs("info", "--backing-chain", "--output=json", "image.qed").output.utf8))
                as? [[String: Any]])
        #expect(members.count == oracle.count)
        for (mine, its) in zip(members, oracle) {
            for (key, value) in its { #expect(mine[key] as? NSObject == value as? NSObject, "\(key)") }
        }
        #expect(
            try ours("info", "--backing-chain", "image.qed").output.hasSuffix(
                "\n\nimage: base.raw\nfile format: raw\nvirtual size: 10 MiB (10485760 bytes)\ndisk size: 172 KiB\n"))
        try FileManager.default.removeItem(atPath: directory.path("base.raw"))
        #expect(try ours("info", "--backing-chain", "image.qed").status == 4)
    }

    @Test func ioWritesAndVerifies() throws {
        let written = try ours(
            "io", "image.qed", "write -P 0xab 64k 4k", "read -P 0xab 64k 4k", "write -P 7 1000 100",
            "read -P 7 1000 100",
            "read -P 1 900 100", "write -z 1M 64k", "read -P 0 1M 64k", "discard 2M 1M", "flush", "length")
        #expect(written.status == 0, "\(written.output)\(written.errors)")
        #expect(
            written.output.hasPrefix("wrote 4096/4096 bytes at offset 65536\nread 4096/4096 bytes at offset 65536\n"))
        #expect(written.output.hasSuffix("flushed\n20971520\n"))
        try require(
            ["qemu-io", "-f", "qed", "image.qed", "-c", "read -P 0xab 64k 4k", "-c", "read -P 7 1000 100"],
            in: directory.path)
        let different = try ours("io", "image.qed", "read -P 1 64k 4k", "read -P 0xab 64k 4k")
        #expect(different.status == 1)
        #expect(different.output.hasPrefix("Pattern verification failed at offset 65536\n"))
        let dump = try ours("io", "image.qed", "read -v 1000 16")
        #expect(dump.output.hasPrefix("000003e8:  07 07 07 07 07 07 07 07 07 07 07 07 07 07 07 07  ................\n"))
        let before = try directory.contents()
        for script in [
            "frob 0 4k", "read 0", "read x 4k", "write -P 300 0 4k", "read -w 0 4k", "read 0 4k 5", "", "read 19M 2M",
            "read 0 16E",
        ] {
            let result = try ours("io", "image.qed", "write 0 4k", script)
            #expect(result.status == 64, "\(script)")
            #expect(result.errors.split(separator: "\n").count == 1)
            #expect(try directory.contents() == before)
        }
        #expect(try ours("io", "-U", "image.qed", "write 0 4k").status == 64)
    }

    @Test func createReplacesOnlyWhatItIsToldTo() throws {
        try writeFile(directory.path("old.qed"), [1, 2, 3])
        #expect(try ours("create", "old.qed", "1G").status == 3)
        #expect(try readFile(directory.path("old.qed")) == [1, 2, 3])
        #expect(try ours("create", "--force", "old.qed", "1G").status == 0)
        #expect(try theirs("check", "old.qed").status == 0)
        let holder = try ImageHolder(directory.path("old.qed"))
        #expect(try ours("create", "--force", "old.qed", "2G").status == 3)
        holder.release()
        try directory.makeDirectory("directory")
        #expect(try ours("create", "--force", "directory", "1G").status == 2)
        #expect(try ours("create", "-o", "cluster_size=4k,table_size=2", "small.qed", "1G").status == 0)
        #expect(try ImageEditor(directory.path("small.qed")).clusterSizeBytes == 4096)
        #expect(try ours("create", "-o", "frob=1", "x.qed", "1G").status == 64)
    }

    /// A killed conversion leaves nothing, whatever it had got to.
    @Test func aKilledConversionLeavesNothing() throws {
        try require(["qemu-img", "create", "-q", "-f", "raw", "big.raw", "300M"], in: directory.path)
        try require(["qemu-io", "-f", "raw", "big.raw", "-c", "write -P 5 0 300M"], in: directory.path)
        let before = try directory.contents().keys.sorted()
        let program = try QedUblkProgram.path()
        for seconds in ["0.01", "0.05", "0.1", "0.2"] {
            _ = try run(
                ["timeout", "-s", "KILL", seconds, program, "convert", "-f", "raw", "-O", "qed", "big.raw", "new.qed"],
                in: directory.path)
            if try directory.contents().keys.contains("new.qed") {
                #expect(try theirs("compare", "-f", "raw", "-F", "qed", "big.raw", "new.qed").status == 0)
                try FileManager.default.removeItem(atPath: directory.path("new.qed"))
            }
            #expect(try directory.contents().keys.sorted() == before)
        }
    }
}
