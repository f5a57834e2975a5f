import BlockStorage
import DeviceServer
import Foundation
import Glibc
import Platform
import TestSupport
import Testing

/// What `add`, `del` and `list` keep on any machine, with the driver or without: no device is made here.
@Suite struct DeviceContractTests {
    let directory: TemporaryDirectory
    /// Where records of devices are looked for.
    private var runtime: String { directory.path("run") }

    init() throws {
        directory = try TemporaryDirectory()
        try directory.makeDirectory("run")
        try require([try QedUblkProgram.path(), "create", "image.qed", "10M"], in: directory.path)
        try require(["chmod", "777", directory.path, runtime])
    }

    private func ours(
        asNobody: Bool = false, variables: [String] = [], _ arguments: String...
    ) throws -> CommandResult {
        // The build directory may lie where another user cannot go.
        let program = directory.path("program")
        try require(["install", "-m", "755", try QedUblkProgram.path(), program])
        let sandbox =
            asNobody && getuid() == 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : []
        let result = try run(
            ["env", "QED_UBLK_RUNTIME_DIR=\(runtime)"] + variables + sandbox + [program] + arguments, in: directory.path)
        try FileManager.default.removeItem(atPath: program)
        return result
    }

    private func expectOneSentence(_ result: CommandResult, _ statuses: Set<Int32>, naming text: String) {
        #expect(statuses.contains(result.status), "\(result.errors)")
        #expect(result.output == "")
        #expect(
            result.errors.hasPrefix("qed-ublk: ") && result.errors.split(separator: "\n").count == 1
                && result.errors.contains(text), "\(result.errors)")
    }

    /// Nobody may use the driver, if there is one.
    @Test("add of a sound image", arguments: [[], ["--read-only"], ["--foreground"]])
    func add(options: [String]) throws {
        try require(["chmod", "666", directory.path("image.qed")])
        let before = try directory.contents()
        let hasDriver = FileManager.default.fileExists(atPath: "/dev/ublk-control")
        let result = try ours(asNobody: true, "add", options.first ?? "--depth=128", "image.qed")
        if hasDriver {
            expectOneSentence(result, [5], naming: "run this as root")
        } else {
            expectOneSentence(result, [6], naming: "this kernel has no ublk")
        }
        let after = try directory.contents()
        #expect(after == before)
    }

    /// Said before anything is done that may hang: nobody reads it after that. Without the driver, or the right to use it, the
    /// first look for it ends the command.
    @Test("add on a kernel that is known to hang", arguments: [[], ["--foreground"], ["--supervise"]])
    func knownDefect(options: [String]) throws {
        try writeFile(
            directory.path("uname.c"),
            Array(
                """
                #include <string.h>
                #include <sys/utsname.h>
                int uname(struct utsname *name) {
                    memset(name, 0, sizeof *name);
                    strcpy(name->release, "6.18.4-test");
                    return 0;
                }
                """.utf8))
        try require(["gcc", "-shared", "-fPIC", "-o", "uname.so", "uname.c"], in: directory.path)
        try require(["chmod", "666", directory.path("image.qed")])
        let before = try directory.contents()
        let result = try ours(
            asNobody: true, variables: ["LD_PRELOAD=\(directory.path("uname.so"))"], "add", options.first ?? "--depth=128",
            "image.qed")
        let lines = result.errors.split(separator: "\n")
        #expect(lines.count == 2 && lines[0].hasPrefix("qed-ublk: warning: Linux 6.18.4-test is known to hang"), "\(lines)")
        #expect(lines.last?.contains("ublk") == true && [5, 6].contains(result.status), "\(lines)")
        #expect(result.output == "")
        let after = try directory.contents()
        #expect(after == before)
    }

    @Test("options of add that cannot be", arguments: [["-q", "0"], ["-d", "5000"], ["-n", "-1"], ["-n", "x"]])
    func options(_ options: [String]) throws {
        let before = try directory.contents()
        expectOneSentence(try ours("add", options[0], options[1], "image.qed"), [64], naming: "--help")
        #expect(try directory.contents() == before)
    }

    @Test(
        "del and stats of what is not served",
        arguments: [
            "0", "ublkb7", "/dev/ublkb4000000000", "image.qed", "none.qed", "run", "/dev/null", "99999999999999999999",
        ])
    func unknownDevice(_ name: String) throws {
        for words in [["del", "--"], ["del", "--force"], ["stats", "--json"], ["stats", "--"]] {
            let before = try directory.contents()
            let result = try ours(words[0], words[1], name)
            expectOneSentence(result, [4], naming: "\(name): qed-ublk serves no such device; see 'qed-ublk list'")
            #expect(try directory.contents() == before)
        }
    }

    @Test func listOfNothing() throws {
        let before = try directory.contents()
        let result = try ours("list")
        #expect(result.status == 0 && result.errors == "")
        #expect(result.output == "DEVICE  STATE  SIZE  QUEUES  DEPTH  RO  IMAGE\n")
        for words in ["--json", "--output=json"] {
            #expect(try ours("list", words).output == "[]\n")
        }
        #expect(try ours("list", "-O", "image,Device").output == "IMAGE  DEVICE\n")
        #expect(try ours("list", "--noheadings").output == "")
        expectOneSentence(try ours("list", "-O", "device,names"), [64], naming: "there is no column 'names'; there are device,")
        expectOneSentence(try ours("list", "disk.qed"), [4], naming: "disk.qed: qed-ublk serves no such device")
        #expect(try directory.contents() == before)
    }

    /// Everything that is no record is left alone, and keeps nobody waiting.
    @Test func whatIsNoRecord() throws {
        try writeFile("\(runtime)/ublk0.json", Array("{\"device_id\": 0".utf8))
        try writeFile("\(runtime)/ublk1.json", Array(repeating: 0x20, count: 1 << 20))
        try writeFile("\(runtime)/ublkx.json", Array("{}".utf8))
        try require(["mkfifo", "\(runtime)/ublk2.json"])
        try directory.makeDirectory("run/ublk3.json")
        let before = try directory.contents()
        #expect(try ours("list", "--json").output == "[]\n")
        for name in ["0", "1", "2", "3"] { #expect(try ours("del", name).status == 4) }
        #expect(try directory.contents() == before)
    }

    @Test func listWithoutRights() throws {
        let server = try #require(ProcessIdentity.current)
        var record = DeviceRecord(
            deviceID: 4000, server: server, imagePath: "/images/a\nb.qed",
            image: FileIdentity(high: 1, low: 2), deviceNonce: 1,
            isReadOnly: true, startedAt: 0)
        // Its server cannot be asked.
        record.base = KnownBase(address: "nbd://h/", sizeBytes: 1 << 20)
        try DeviceRegistry(directory: runtime).record(record)
        let result = try ours(asNobody: true, "list")
        #expect(result.status == 0, "\(result.errors)")
        #expect(
            result.output.split(separator: "\n").last?.split(separator: " ")
                == ["/dev/ublkb4000", "unknown", "?", "?", "?", "1", "/images/a\\u{a}b.qed"])
        let json = try ours(asNobody: true, "list", "--json")
        let devices = try #require(try JSONSerialization.jsonObject(with: Data(json.output.utf8)) as? [[String: Any]])
        #expect(devices.count == 1)
        #expect(
            Set(devices.first?.keys ?? [:].keys)
                == [
                    "device", "id", "state", "size", "queues", "depth", "read-only", "zero-copy", "pid", "image", "block-size",
                    "direct-io", "max-io-size", "memory", "name", "symlink", "base", "base-state", "base-away-since",
                ])
        #expect(devices.first?["base"] as? String == "nbd://h/" && devices.first?["base-state"] is NSNull)
        #expect(try ours(asNobody: true, "list", "-n", "-O", "device,base").output == "/dev/ublkb4000  ?\n")
        #expect(devices.first?["pid"] as? Int32 == server.id)
        expectOneSentence(try ours(asNobody: true, "del", "4000"), [5, 6], naming: "ublk")
    }

    @Test(
        .enabled(if: getuid() == 0),
        arguments: [
            ["list"], ["del", "0"], ["stats", "0"], ["snapshot", "0", "a.qed"], ["fork", "0", "a.qed", "b.qed"],
            ["rollback", "0", "a.qed"], ["snapshots", "0"], ["commit", "0"], ["flatten", "0"], ["resize", "0", "1G"], ["metrics"],
            ["status", "0"], ["warm", "0"], ["top", "-b", "-n", "1"],
            ["recover", "--all"],
            ["add", "image.qed"],
        ])
    func recordsOfSomebodyElse(words: [String]) throws {
        try require(["chown", "65534", runtime])
        let result = try run(
            ["env", "QED_UBLK_RUNTIME_DIR=\(runtime)", try QedUblkProgram.path()] + words, in: directory.path)
        expectOneSentence(result, [5], naming: "it belongs to another user")
    }

    /// An image that another program has is waited for, for a second: long enough to be told to stop.
    @Test func interruptedWhileOpening() throws {
        let holder = try ImageHolder(directory.path("image.qed"))
        defer { holder.release() }
        var statuses: [Int32] = []
        while !statuses.contains(130), statuses.count < 5 {
            let result = try run(
                [
                    "env", "--default-signal=INT", "QED_UBLK_RUNTIME_DIR=\(runtime)", "timeout", "--preserve-status",
                    "--signal=INT", "0.5", try QedUblkProgram.path(), "add", "--foreground", "image.qed",
                ], in: directory.path)
            statuses.append(result.status)
        }
        #expect(statuses.contains(130), "\(statuses)")
    }

    @Test func fullStandardOutput() throws {
        let program = try QedUblkProgram.path()
        let result = try run(
            ["env", "QED_UBLK_RUNTIME_DIR=\(runtime)", "sh", "-c", "exec \"$1\" list > /dev/full", "sh", program],
            in: directory.path)
        expectOneSentence(result, [1], naming: "cannot write to standard output")
    }

    // MARK: create

    @Test("create over what is there", arguments: ["directory", "fifo", "text", "image.qed", "link"], [false, true])
    func createOver(_ name: String, force: Bool) throws {
        try directory.makeDirectory("directory")
        try require(["mkfifo", directory.path("fifo")])
        try writeFile(directory.path("text"), Array("text".utf8))
        try FileManager.default.createSymbolicLink(atPath: directory.path("link"), withDestinationPath: "nowhere")
        let holder = name == "image.qed" && force ? try ImageHolder(directory.path(name)) : nil
        defer { holder?.release() }
        let before = try directory.contents()
        let result = force ? try ours("create", "--force", name, "1M") : try ours("create", name, "1M")
        if name == "text" && force {
            #expect(result.status == 0)
            #expect(try readFile(directory.path("text")).prefix(3) == [0x51, 0x45, 0x44])
            return
        }
        expectOneSentence(result, force ? [2, 3, 4] : [3], naming: name)
        #expect(try directory.contents() == before)
    }

    @Test func createWhereNothingMayBeMade() throws {
        try directory.makeDirectory("closed")
        try require(["chmod", "555", directory.path("closed")])
        let before = try directory.contents()
        expectOneSentence(try ours(asNobody: true, "create", "closed/new.qed", "1M"), [5], naming: "closed/new.qed")
        expectOneSentence(try ours("create", "none/new.qed", "1M"), [4], naming: "none/new.qed")
        expectOneSentence(try ours("create", "image.qed/new.qed", "1M"), [4], naming: "image.qed/new.qed")
        #expect(try directory.contents() == before)
    }
}
