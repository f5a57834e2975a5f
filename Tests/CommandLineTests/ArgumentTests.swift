import ArgumentParser
import BlockStorage
import Platform
import Testing

@testable import DeviceServer
@testable import qed_ublk

extension DeviceOptions {
    /// What the server of a device that is made with these is told.
    func configuration() throws -> ServerConfiguration {
        try requested().configuration(imagePath: AbsolutePath.ofFile(image))
    }
}

@Suite struct SizeArgumentTests {
    @Test(
        "sizes",
        arguments: [
            ("0", 0), ("1000", 1000), ("20G", 20 << 30), ("1.5T", 3 << 39), ("512M", 512 << 20), ("1k", 1024),
            ("1K", 1024), ("7b", 7), ("7B", 7), ("2P", 2 << 50), ("15E", 15 << 60), ("007", 7), ("0.5K", 512),
            // What is left of a byte is dropped, as qemu-img does: 1126.4.
            ("1.1K", 1126), ("0.9999999999999999999999999K", 1023), ("18446744073709551615", .max),
            ("15.9999999999999999999999E", 0 &- 2),
        ] as [(String, UInt64)])
    func sizes(text: String, bytes: UInt64) throws {
        #expect(try SizeArgument.parse(text) == bytes)
    }

    @Test(
        "no sizes",
        arguments: [
            "", "K", ".", "1.", ".5G", "1.5", "1.5b", "1.2.3K", "-1", "+1", " 1", "1 ", "1 K", "20GB", "20GiB", "0x10",
            "1e3", "1,5G", "٣", "１", "1K\n", "nan", "1_000",
        ])
    func noSizes(text: String) {
        #expect(throws: SizeArgumentError.notASize) { try SizeArgument.parse(text) }
    }

    @Test(
        "sizes beyond 64 bits",
        arguments: [
            "18446744073709551616", "16E", "16384P", "99999999999999999999999999999999999999999999999999G",
            "18446744073709551615K", "16.0E",
        ])
    func overflow(text: String) {
        #expect(throws: SizeArgumentError.tooLarge) { try SizeArgument.parse(text) }
    }
}

@Suite struct PathArgumentTests {
    @Test func paths() throws {
        #expect(try PathArgument.parse("dir/a:b.qed") == "dir/a:b.qed")
        #expect(throws: PathArgumentError.empty) { try PathArgument.parse("") }
        #expect(throws: PathArgumentError.directory) { try PathArgument.parse("dir/") }
        #expect(throws: PathArgumentError.notUTF8) { try PathArgument.parse("a\u{fffd}") }
    }
}

@Suite struct ServeArgumentsTests {
    /// `add` gives its options to the process that serves the device.
    @Test(
        arguments: [
            ["x.qed"], ["--no-backing", "-r", "-n", "1", "x.qed"],
            ["--no-recovery", "--zero-copy", "off", "-b", "4096", "-n", "0", "--cache-size", "1.5M", "--", "--id"],
            ["--name", "a", "--no-partscan", "x.qed"], ["--snapshot", "x.qed"],
            ["--symlink", "/srv/a link", "x.qed"], ["--symlink", "here", "x.qed"],
            ["--base-allow", "nbd://a/*", "--base-allow", "*", "--base-timeout", "0", "--copy-on-read", "x.qed"],
            ["--copy-on-read", "-r", "--keep-limit", "1.5G", "x.qed"],
            ["--copy-on-read", "--record", "/a b", "--prefetch", "/c", "x.qed"],
            ["--untrusted", "--name", "x-\\x2dy.z@1", "x.qed"],
            ["-q", "2", "-d", "7", "-n", "3", "--backing-devices", "--backing-dir", "/", "--backing-dir", "/dev", "a b"],
        ])
    func optionsReachTheServer(given: [String]) throws {
        var configuration = try DeviceOptions.parse(given).configuration()
        for recovers in [false, true] where !recovers || configuration.deviceID != nil {
            configuration.recovers = recovers
            let received = try ServerConfiguration(serveArguments: configuration.serveArguments)
            #expect(Self.fields(of: received) == Self.fields(of: configuration))
        }
    }

    /// Every stored property as text, those that come later too.
    private static func fields(of configuration: ServerConfiguration) -> [String] {
        Mirror(reflecting: configuration).children.map { field in
            guard let policy = field.value as? BackingPolicy else { return "\(field.label ?? ""): \(field.value)" }
            // The directories are held open, each time by another descriptor.
            return "\(policy.refusesBackingFiles) \(policy.allowsBlockDevices) \(policy.directories?.map(\.path) ?? [])"
        }
    }

    @Test(
        arguments: [
            [], ["x.qed"], ["--"], ["--", "x.qed", "y.qed"], ["--depth", "--", "x.qed"], ["--depth", "-1x", "--", "x.qed"],
            ["--zero-copy", "maybe", "--", "x.qed"], ["--backing-dir", "--", "x.qed"], ["--nope", "--", "x.qed"],
            ["--", ""], ["--recover", "--", "x.qed"], ["--depth", "0", "--", "x.qed"],
            ["--depth", "9223372036854775807", "--", "x.qed"], ["--queues", "-1", "--", "x.qed"],
            ["--block-size", "7", "--", "x.qed"], ["--name", "a/b", "--", "x.qed"], ["--symlink", "a", "--", "x.qed"],
            ["--cache-size", "1048575", "--", "x.qed"],
        ])
    func otherArgumentsAreRefused(words: [String]) {
        #expect(throws: ServeArgumentError(words: words)) { try ServerConfiguration(serveArguments: words) }
    }
}

@Suite struct TextTests {
    @Test func sizesForPeople() {
        #expect(SizeText.short(0) == "0 B")
        #expect(SizeText.short(999) == "999 B")
        #expect(SizeText.short(1000) == "0.977 KiB")
        #expect(SizeText.short(1024) == "1 KiB")
        #expect(SizeText.short(1536) == "1.5 KiB")
        #expect(SizeText.short(260 << 10) == "260 KiB")
        #expect(SizeText.short(10_700 << 10) == "10.4 MiB")
        #expect(SizeText.short(.max) == "16 EiB")
        #expect(SizeText.long(1 << 30) == "1 GiB (1073741824 bytes)")
    }

    @Test func controlCharactersNeverReachATerminal() {
        #expect("a\u{1b}[31m\nb\u{202e}é".printable == "a\\u{1b}[31m\\u{a}b\\u{202e}é")
    }

    @Test func jsonIsSortedAndEscaped() {
        let value: JSONValue = ["b": [JSONValue(UInt64.max), false], "a": "\"\\\n\u{7f}é", "c": [:]]
        #expect(
            value.indented() == """
                {
                    "a": "\\"\\\\\\n\\u007fé",
                    "b": [
                        18446744073709551615,
                        false
                    ],
                    "c": {}
                }
                """)
    }

    @Test func exitStatusesNeverChange() {
        #expect(ExitStatus.allCases.map(\.rawValue) == [0, 1, 2, 3, 4, 5, 6, 7, 64])
        for line in ExitStatus.table.split(separator: "\n") { #expect(line.count <= 80) }
    }
}
