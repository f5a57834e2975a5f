import ArgumentParser
import BlockStorage
import Foundation
import TestSupport
import Testing

@testable import DeviceServer
@testable import qed_ublk

/// `add` of an image whose device waits for a server: each option is what the device has, or is refused.
@Suite struct AddToWaitingDeviceTests {
    /// How a device was made, and the options that say so and that say something else.
    struct Row: Sendable, CustomTestStringConvertible {
        var option: String
        var same: [[String]]
        var other: [[String]]
        var testDescription: String { option }
    }

    static let rows = [
        Row(option: "--queues", same: [["-q", "4"], ["--queues", "9"]], other: [["-q", "3"], ["-q", "1"]]),
        Row(option: "--depth", same: [["-d", "64"]], other: [["-d", "65"]]),
        Row(option: "--block-size", same: [["-b", "512"]], other: [["-b", "4096"]]),
        Row(option: "--id", same: [["-n", "5"]], other: [["-n", "0"]]),
        Row(option: "--name", same: [["--name", "root"]], other: [["--name", "roots"]]),
        Row(
            option: "--symlink", same: [["--symlink", "/srv/root"]],
            other: [["--symlink", "/srv/roots"], ["--symlink", "root"]]),
        Row(option: "--partscan", same: [["--partscan"]], other: []),
        Row(option: "--untrusted", same: [], other: [["--untrusted"], ["--untrusted", "--backing-dir", "/"]]),
        Row(option: "--snapshot", same: [], other: [["--snapshot"]]),
        Row(option: "--read-only", same: [], other: [["-r"]]),
        Row(option: "--force", same: [], other: [["--force"]]),
        Row(option: "--no-recovery", same: [], other: [["--no-recovery"]]),
        Row(
            option: "--zero-copy", same: [["--zero-copy", "auto"], ["--zero-copy", "off"]], other: [["--zero-copy", "on"]]),
        Row(
            option: "--cache-size", same: [["--cache-size", "64M"], ["--cache-size", "67108864"]],
            other: [["--cache-size", "32M"], ["--cache-size", "1G"]]),
        Row(option: "--no-backing", same: [], other: [["--no-backing"]]),
        Row(
            option: "--backing-dir",
            same: [["--backing-dir", "/usr", "--backing-dir", "/"], ["--backing-dir", "/usr/../usr/", "--backing-dir", "/"]],
            other: [["--backing-dir", "/usr"], ["--backing-dir", "/"], ["--backing-dir", "."]]),
        Row(option: "--backing-devices", same: [["--backing-devices"]], other: []),
        Row(
            option: "--base-allow", same: [["--base-allow", "nbd://a/*"]],
            other: [["--base-allow", "*"], ["--base-allow", "nbd://a/*", "--base-allow", "nbd://b/*"]]),
        Row(option: "--copy-on-read", same: [], other: [["--copy-on-read"]]),
        Row(option: "--keep-limit", same: [], other: [["--copy-on-read", "-r", "--keep-limit", "1G"]]),
        Row(option: "--record", same: [], other: [["--record", "x.reads"]]),
        Row(option: "--prefetch", same: [], other: [["--copy-on-read", "--prefetch", "x.reads"]]),
        Row(option: "--base-timeout", same: [["--base-timeout", "5"]], other: [["--base-timeout", "0"]]),
    ]

    /// About the server, not the device.
    static let ofTheServer: Set = ["--foreground", "--supervise"]

    private let device = DeviceTraits(
        id: 5, name: DeviceName("root"), link: DeviceLink(path: "/srv/root"), scansPartitions: true, isUntrusted: false,
        isReadOnly: false, isRecoverable: true,
        queueCount: 4, queueDepth: 64, blockSizeBytes: 512, isZeroCopy: false,
        cacheBytes: 64 << 20, keepsReads: false,
        backingArguments: [
            "--backing-devices", "--backing-dir", "/", "--backing-dir", "/usr", "--base-allow", "nbd://a/*", "--base-timeout",
            "5",
        ],
        processorCount: 4)

    @Test("an option that is what the device has, or is not given", arguments: rows)
    func same(row: Row) throws {
        for words in row.same + [[]] {
            #expect(try device.difference(from: DeviceOptions.parse(words + ["x.qed"]).requested()) == nil, "\(words)")
        }
    }

    @Test("an option that asks for another device", arguments: rows)
    func other(row: Row) throws {
        for words in row.other {
            #expect(
                try device.difference(from: DeviceOptions.parse(words + ["x.qed"]).requested())?.option == row.option, "\(words)")
        }
    }

    @Test("the same of devices that were made otherwise")
    func otherDevices() throws {
        var other = device
        other.isReadOnly = true
        #expect(try other.difference(from: DeviceOptions.parse(["-r", "x.qed"]).requested()) == nil)
        other.scansPartitions = false
        #expect(try other.difference(from: DeviceOptions.parse(["--no-partscan", "x.qed"]).requested()) == nil)
        #expect(try other.difference(from: DeviceOptions.parse(["--partscan", "x.qed"]).requested())?.option == "--partscan")
        #expect(
            try device.difference(from: DeviceOptions.parse(["--no-partscan", "x.qed"]).requested())?.option == "--no-partscan")
        other.isZeroCopy = true
        #expect(try other.difference(from: DeviceOptions.parse(["--zero-copy", "on", "x.qed"]).requested()) == nil)
        #expect(
            try other.difference(from: DeviceOptions.parse(["--zero-copy", "off", "x.qed"]).requested())?.option == "--zero-copy")
        other.backingArguments = ["--no-backing"]
        #expect(try other.difference(from: DeviceOptions.parse(["--no-backing", "x.qed"]).requested()) == nil)
        #expect(
            try other.difference(from: DeviceOptions.parse(["--backing-dir", "/", "x.qed"]).requested())?.option
                == "--backing-dir")
        other.backingArguments = []
        for words in [
            ["--backing-devices"], ["--no-backing"], ["--backing-dir", "/"], ["--base-allow", "*"], ["--base-timeout", "1"],
        ] {
            #expect(try other.difference(from: DeviceOptions.parse(words + ["x.qed"]).requested())?.option == words[0])
        }
    }

    @Test("every option of add is in this table, those that come later too")
    func isComplete() {
        let options = OptionNames.of(AddCommand.self)
        #expect(options == Set(Self.rows.map(\.option)).union(Self.ofTheServer))
    }
}

/// What is given to a server, which works elsewhere, and recorded for the next.
@Suite struct AbsoluteArgumentTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for name in ["real", "real/images", "real/bases"] { try directory.makeDirectory(name) }
        try FileManager.default.createSymbolicLink(
            atPath: directory.path("link"), withDestinationPath: directory.path("real/images"))
    }

    @Test func relativeNames() throws {
        let real = try require(["realpath", directory.path("real")]).dropLast()
        let toRoot = String(repeating: "../", count: FileManager.default.currentDirectoryPath.split(separator: "/").count)
        let link = toRoot + directory.path("link").dropFirst()
        let configuration = try DeviceOptions.parse(["--backing-dir", "\(link)/../bases", "\(link)/a.qed"]).configuration()
        #expect(configuration.imagePath == "\(real)/images/a.qed")
        #expect(configuration.backingArguments == ["--backing-dir", "\(real)/bases"])
        #expect(try AbsolutePath.ofFile("a.qed") == "\(FileManager.default.currentDirectoryPath)/a.qed")
        #expect(throws: ImageFileError.notFound(path: "none/a.qed")) { try AbsolutePath.ofFile("none/a.qed") }
    }

    @Test func linksAreFollowedOnce() throws {
        let real = try require(["realpath", directory.path("real")]).dropLast()
        let options = try DeviceOptions.parse(["--backing-dir", directory.path("link/../bases/"), directory.path("link/a.qed")])
        let configuration = try options.configuration()
        // An absolute name of an image stays: its backing files' names start there.
        #expect(configuration.imagePath == directory.path("link/a.qed"))
        #expect(configuration.backingArguments == ["--backing-dir", "\(real)/bases"])
    }
}
