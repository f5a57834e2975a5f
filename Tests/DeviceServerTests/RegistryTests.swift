import BlockStorage
import Foundation
import Glibc
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import DeviceServer

struct RegistryTests {
    private let directory: TemporaryDirectory
    private let registry: DeviceRegistry

    init() throws {
        directory = try TemporaryDirectory()
        registry = DeviceRegistry(directory: directory.path("run"))
    }

    private func record(
        _ deviceID: UInt32, imagePath: String = "/images/a.qed", image: FileIdentity = .init(high: 1, low: 2)
    ) -> DeviceRecord {
        DeviceRecord(
            deviceID: deviceID, server: ProcessIdentity(id: 4711, startTicks: .max), imagePath: imagePath,
            image: image, deviceNonce: .max, isReadOnly: false, startedAt: 1_700_000_000)
    }

    private func putFile(_ name: String, _ content: String) throws { try directory.write(content, to: "run/\(name)") }

    @Test func recordsAreKept() throws {
        var second = record(12, imagePath: "/images/\"odd\" name\n\\ 🧀.qed", image: .init(high: .max, low: .max))
        second.isReadOnly = true
        second.name = DeviceName("root")
        second.link = DeviceLink(path: "/srv/a \"link\"")
        second.startedAt = .min
        second.isBeingTakenOver = true
        second.hasFailed = true
        second.isDirect = false
        second.backingFiles = [.init(high: 3, low: 4), .init(high: 0, low: 5)]
        second.base = KnownBase(address: "nbd://h/", sizeBytes: .max)
        second.leftImage = ImageMark(sizeBytes: .max, writtenAt: .min)
        try registry.record(second)
        try registry.record(record(3))
        #expect(registry.list() == [record(3), second])
        #expect(registry.record(of: 12) == second)
        #expect(registry.record(of: 1) == nil)
        #expect(directory.names == ["run"])
    }

    @Test func recordIsReplacedWhole() throws {
        try registry.record(record(3, imagePath: "/images/" + String(repeating: "long", count: 500)))
        try registry.record(record(3, imagePath: "/b"))
        #expect(registry.list() == [record(3, imagePath: "/b")])
        #expect(TemporaryDirectory.names(in: registry.directory) == ["ublk3.json"])
    }

    @Test func everybodyMayReadAndRootAloneWrite() throws {
        try registry.record(record(3))
        var status = stat()
        #expect(stat(registry.directory, &status) == 0 && status.st_mode & 0o7777 == 0o755)
        #expect(stat(registry.directory + "/ublk3.json", &status) == 0 && status.st_mode & 0o7777 == 0o644)
    }

    @Test func leftOverOfADeadWriterIsReplaced() throws {
        try registry.record(record(1))
        try putFile(".ublk3.json.\(getpid())", "half")
        try registry.record(record(3))
        #expect(registry.list() == [record(1), record(3)])
        #expect(TemporaryDirectory.names(in: registry.directory) == ["ublk1.json", "ublk3.json"])
    }

    /// A writer may be killed between making a record and putting it into its place; it never comes back for it.
    @Test(arguments: ["record", "remove"])
    func leftOversOfDeadWritersAreTakenAway(by step: String) throws {
        try registry.record(record(1))
        // No process has the largest number.
        for name in [".ublk1.json.2147483647", ".ublk7.json.2147483647"] { try putFile(name, "half") }
        // These are no left-overs: their writers live, or they are no writer's.
        let others = [".ublk7.json.1", ".ublk7.json.", ".ublk.json.2147483647", ".ublk7.json.-5", "ublk7.json.2147483647"]
        for name in others { try putFile(name, "other") }
        if step == "record" { try registry.record(record(3)) } else { try registry.remove(1) }
        let records = step == "record" ? ["ublk1.json", "ublk3.json"] : []
        #expect(TemporaryDirectory.names(in: registry.directory).sorted() == (others + records).sorted())
    }

    @Test func removedRecordsAreGone() throws {
        try registry.record(record(3))
        try registry.record(record(4))
        try registry.remove(3)
        try registry.remove(3)
        #expect(registry.list() == [record(4)])
    }

    @Test func noDirectoryIsNoRecords() throws {
        #expect(registry.list() == [])
        #expect(registry.find(.device(3)) == [])
        try registry.remove(3)
    }

    @Test func directoryThatCannotBeMadeIsAnError() throws {
        try directory.write("", to: "run")
        #expect(throws: RegistryError(attempt: "make the directory", path: registry.directory, errno: .notDirectory)) {
            try registry.record(record(3))
        }
        let orphan = DeviceRegistry(directory: directory.path("missing/run"))
        let missing = RegistryError(
            attempt: "make the directory", path: orphan.directory, errno: .noSuchFileOrDirectory)
        #expect(throws: missing) { try orphan.record(record(3)) }
        #expect(directory.names == ["run"])
    }

    /// A record that cannot take its place leaves nothing behind.
    @Test func failedWriteLeavesNoFile() throws {
        try registry.record(record(3))
        try #require(mkdir(registry.directory + "/ublk4.json", 0o755) == 0)
        #expect(throws: RegistryError.self) { try registry.record(record(4)) }
        #expect(TemporaryDirectory.names(in: registry.directory) == ["ublk3.json", "ublk4.json"])
    }

    @Test func foreignAndHalfWrittenFilesAreIgnored() throws {
        try registry.record(record(3))
        let whole = record(5).json.description
        try putFile("ublk5.json", String(whole.dropLast(3)))
        try putFile("ublk6.json", "")
        try putFile("ublk7.json", "garbage \u{0} \u{ff}")
        try putFile("ublk8.json", record(9).json.description)
        try putFile("ublk10.json", String(repeating: " ", count: DeviceRegistry.recordLimitBytes) + record(10).json.description)
        for name in [
            "ublk.json", "ublk05.json", "ublk-1.json", "ublk+5.json", "ublk4294967296.json", "ublkx.json",
            "ublk5.json.bak",
            "ublk5.sock", "Xublk5.json", "ublk5json",
        ] { try putFile(name, whole) }
        #expect(registry.list() == [record(3)])
        #expect(registry.record(of: 8) == nil)
    }

    @Test(.timeLimit(.minutes(1)))
    func whatIsNoOrdinaryFileIsNotOpened() throws {
        try registry.record(record(3))
        let outside = try directory.write(record(5).json.description, to: "outside")
        #expect(symlink(outside, registry.directory + "/ublk5.json") == 0)
        // Opening a FIFO for reading would wait for a writer.
        #expect(mkfifo(registry.directory + "/ublk6.json", 0o644) == 0)
        #expect(mkdir(registry.directory + "/ublk7.json", 0o755) == 0)
        #expect(symlink("/dev/zero", registry.directory + "/ublk8.json") == 0)
        #expect(registry.list() == [record(3)])
    }

    @Test(arguments: [
        "device_id", "pid", "process_start_ticks", "image", "image_identity", "device_nonce", "read_only", "started_at",
    ])
    func recordWithoutAMemberIsNone(name: String) throws {
        guard case .object(let members) = record(3).json else {
            Issue.record("no object")
            return
        }
        #expect(DeviceRecord(.object(members)) == record(3))
        #expect(DeviceRecord(.object(members + [.init("later", 1)])) == record(3))
        #expect(DeviceRecord(.object(members.filter { $0.name != name })) == nil)
        for impossible: JSONValue in [.null, .number(0.5), [], JSONValue(Int128.max)] {
            let changed = members.map { $0.name == name ? .init(name, impossible) : $0 }
            #expect(DeviceRecord(.object(changed)) == nil)
        }
    }

    @Test(
        "a base that nobody has recorded, or that cannot be one, is not known",
        arguments: [
            nil, JSONValue.null, 1, "nbd://h/", ["address": "nbd://h/"], ["address": 1, "size": 1],
            ["address": "nbd://h/", "size": -1],
        ])
    func recordWithoutABase(value: JSONValue?) {
        var full = record(3)
        full.base = KnownBase(address: "nbd://h/", sizeBytes: 1 << 30)
        guard case .object(let members) = full.json else {
            Issue.record("no object")
            return
        }
        #expect(DeviceRecord(.object(members)) == full)
        let others = members.filter { $0.name != "base" }
        #expect(DeviceRecord(.object(others + (value.map { [.init("base", $0)] } ?? []))) == record(3))
    }

    @Test(arguments: [
        ("pid", JSONValue(0)), ("pid", JSONValue(-1)), ("pid", JSONValue(UInt32.max)), ("image", JSONValue("relative")),
        ("image", JSONValue("")), ("image", JSONValue("/a\u{0}b")), ("device_id", JSONValue(-1)),
        ("device_id", JSONValue(UInt64.max)), ("device_nonce", JSONValue(-1)), ("image_identity", JSONValue("12")),
        ("backing_identities", .array([JSONValue("12")])),
        ("image_identity", JSONValue.string(String(repeating: "g", count: 32))), ("read_only", JSONValue(1)),
    ])
    func impossibleRecordIsNone(name: String, value: JSONValue) {
        guard case .object(let members) = record(3).json else {
            Issue.record("no object")
            return
        }
        #expect(DeviceRecord(.object(members.map { $0.name == name ? .init(name, value) : $0 })) == nil)
    }

    @Test(arguments: [
        ("3", DeviceReference.device(3)), ("ublkb3", .device(3)), ("/dev/ublkb3", .device(3)), ("0", .device(0)),
        ("4294967295", .device(.max)), ("./3", .image(path: "./3")), ("03", .image(path: "03")),
        ("4294967296", .image(path: "4294967296")), ("-1", .image(path: "-1")), ("+1", .image(path: "+1")),
        ("", .image(path: "")), ("ublkb", .image(path: "ublkb")), ("/dev/ublkb", .image(path: "/dev/ublkb")),
        ("/dev/ublkb3p1", .device(3)), ("ublkb3p12", .device(3)), ("ublkb3p", .image(path: "ublkb3p")),
        ("ublkb3p01", .image(path: "ublkb3p01")), ("/dev/ublkb3px", .image(path: "/dev/ublkb3px")),
        ("3p1", .image(path: "3p1")), ("/dev/3", .image(path: "/dev/3")), ("a.qed", .image(path: "a.qed")),
    ])
    func devicesAreNamedByNumberNodeOrImage(text: String, reference: DeviceReference) {
        #expect(DeviceReference(text) == reference)
    }

    @Test func devicesAreNamedByLinksToTheirNodes() throws {
        let kernel = try FakeKernel()
        try kernel.add("ublkb3", "259:3")
        try kernel.add("ublkb3p1", "259:4", partitionOf: "ublkb3")
        try kernel.add("dm-0", "253:0")
        kernel.link("/dev/disk/by-label/root", "259:4")
        kernel.link("/root/node", "259:3")
        kernel.link("/dev/vg/volume", "253:0")
        for name in ["/dev/disk/by-label/root", "/root/node"] {
            #expect(DeviceReference(name, kernel.tree) == .device(3), "\(name)")
        }
        for name in ["/dev/vg/volume", "/dev/gone"] {
            #expect(DeviceReference(name, kernel.tree) == .image(path: name), "\(name)")
        }
    }

    @Test func imagesAreFoundByWhatFileTheyAre() throws {
        let path = try directory.write("image", to: "a.qed")
        let image = try #require(FileIdentity(ofFileAt: path))
        try registry.record(record(3, imagePath: path, image: image))
        try registry.record(record(4, imagePath: path, image: image))
        try registry.record(record(5, imagePath: "/elsewhere", image: .init(high: image.high, low: ~image.low)))
        #expect(symlink(path, directory.path("link.qed")) == 0)
        #expect(link(path, directory.path("hard.qed")) == 0)
        for name in ["a.qed", "link.qed", "hard.qed", "./a.qed", "run/../a.qed"] {
            #expect(registry.find(DeviceReference(directory.path(name))).map(\.deviceID) == [3, 4], "\(name)")
        }
        #expect(registry.find(DeviceReference("ublkb4")).map(\.deviceID) == [4])

        // Another file of the same name is another image.
        try #require(unlink(path) == 0)
        let other = try directory.write("other", to: "b.qed")
        try #require(rename(other, path) == 0)
        #expect(registry.find(DeviceReference(path)) == [])
    }

    @Test func imageThatIsGoneIsFoundByItsPath() throws {
        try registry.record(record(3, imagePath: "/nonexistent/a.qed"))
        #expect(registry.find(DeviceReference("/nonexistent/b/../a.qed")).map(\.deviceID) == [3])
        #expect(registry.find(DeviceReference("/nonexistent/c.qed")) == [])
    }

    @Test func directoryIsChosenByTheEnvironment() {
        #expect(DeviceRegistry.directory(chosen: nil) == "/run/qed-ublk")
        #expect(DeviceRegistry.directory(chosen: "") == "/run/qed-ublk")
        #expect(DeviceRegistry.directory(chosen: "/tmp/x") == "/tmp/x")
        #expect(DeviceRegistry.directory(chosen: "x").hasSuffix("/x"))
        #expect(DeviceRegistry.directory(chosen: "x").hasPrefix("/"))
    }

    @Test func whatIsRecordedCanBeRead() throws {
        var large = record(3)
        large.backingArguments = (0..<2000).flatMap { ["--backing-dir", "/\(String(repeating: "d", count: 200))/\($0)"] }
        large.cacheBytes = 64 << 20
        try registry.record(large)
        #expect(registry.record(of: 3) == large)
        large.backingArguments += (0..<2000).flatMap { ["--backing-dir", "/\(String(repeating: "d", count: 200))/\($0)"] }
        let before = try FileManager.default.contentsOfDirectory(atPath: registry.directory)
        #expect(throws: RegistryError.self) { try registry.record(large) }
        #expect(try FileManager.default.contentsOfDirectory(atPath: registry.directory) == before)
        #expect(registry.record(of: 3) != nil)
    }

    @Test(.enabled(if: getuid() == 0)) func aDirectoryOfSomebodyElseIsRefused() throws {
        try registry.record(record(3))
        try registry.checkOwner()
        try #require(chown(registry.directory, 65534, 65534) == 0)
        #expect {
            try registry.checkOwner()
        } throws: {
            "\($0)".contains("belongs to another user")
        }
        #expect(throws: RegistryError.self) { try registry.record(record(4)) }
        #expect(registry.record(of: 4) == nil)
        try DeviceRegistry(directory: directory.path("none")).checkOwner()
    }

    @Test func errorsAreOneSentence() {
        let error = RegistryError(attempt: "write", path: "/run/qed-ublk/ublk0.json", errno: .permissionDenied)
        #expect(error.description == "cannot write /run/qed-ublk/ublk0.json: Permission denied; run this as root")
    }
}
