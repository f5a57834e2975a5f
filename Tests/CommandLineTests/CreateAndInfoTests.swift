import Foundation
import TestSupport
import Testing

@Suite struct CreateAndInfoTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
    }

    private func qedUblk(_ arguments: String...) throws -> CommandResult {
        try run([try QedUblkProgram.path()] + arguments, in: directory.path)
    }

    // MARK: create

    @Test func createIsSilentAndMakesWhatItIsTold() throws {
        let result = try qedUblk("create", "image.qed", "1.5G", "--cluster-size", "32K", "--table-size", "2")
        #expect(result.status == 0)
        #expect(result.output == "")
        #expect(result.errors == "")
        let info = try requireJSON(["qemu-img", "info", "--output=json", "image.qed"], in: directory.path)
        #expect(info["virtual-size"] as? UInt64 == 3 << 29)
        #expect(info["cluster-size"] as? UInt64 == 32 << 10)
        #expect(try readFile(directory.path("image.qed")).count == 3 * 32 << 10)
    }

    @Test func createWarnsOfWhatQEMUMishandles() throws {
        let result = try qedUblk("create", "image.qed", "1G", "--table-size", "16")
        #expect(result.status == 0)
        #expect(result.errors.hasPrefix("qed-ublk: warning: image.qed: "))
    }

    @Test func forceCreatesWhatQEMUCannotOpen() throws {
        #expect(try qedUblk("create", "image.qed", "1G", "--table-size", "1").status == 64)
        #expect(try directory.contents().isEmpty)
        #expect(try qedUblk("create", "image.qed", "1G", "--table-size", "1", "--force").status == 0)
        #expect(try qedUblk("info", "image.qed").output.contains("note: QEMU cannot open"))
    }

    // MARK: info

    /// Both programs on the same images: every line of theirs that ours has as well is the same line.
    @Test("info looks like qemu-img info", arguments: ["0", "512", "1000K", "1G", "5500M", "64T"])
    func infoLooksLikeQEMU(size: String) throws {
        try require(["qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M"], in: directory.path)
        #expect(
            try qedUblk("create", "image.qed", size, "--backing", "base.raw", "--backing-format", "raw").status == 0)
        let ours = try qedUblk("info", "image.qed").output.split(separator: "\n")
        let theirs = try require(["qemu-img", "info", "image.qed"], in: directory.path).split(separator: "\n")
        let keys = [
            "image", "file format", "virtual size", "disk size", "cluster_size", "backing file", "backing file format",
        ]
        for key in keys {
            let line = ours.first { $0.hasPrefix("\(key): ") }
            #expect(line != nil && line == theirs.first { $0.hasPrefix("\(key): ") })
        }
    }

    @Test func jsonHasTheKeysOfQEMU() throws {
        try require(["qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M"], in: directory.path)
        #expect(try qedUblk("create", "image.qed", "--backing", "base.raw", "--backing-format", "raw").status == 0)
        let ours = try requireJSON(
            [try QedUblkProgram.path(), "info", "--output", "json", "image.qed"], in: directory.path)
        let theirs = try requireJSON(["qemu-img", "info", "--output=json", "image.qed"], in: directory.path)
        let shared: Set = [
            "filename", "format", "virtual-size", "actual-size", "cluster-size", "dirty-flag", "backing-filename",
            "backing-filename-format", "full-backing-filename",
        ]
        #expect(Set(theirs.keys).isSuperset(of: shared))
        for key in shared {
            #expect(ours[key] as? NSObject == theirs[key] as? NSObject, "\(key)")
        }
        let own: Set = [
            "file-size", "table-size", "header-size", "features", "compat-features", "autoclear-features",
            "backing-file-state", "block-size", "block-size-reason", "direct-io", "direct-io-reason",
        ]
        #expect(Set(ours.keys) == shared.union(own))
        #expect(ours["table-size"] as? Int == 4)
        #expect(ours["features"] as? [String] == ["backing-file", "backing-format-no-probe"])
        #expect(ours["backing-file-state"] as? String == "present")
    }

    @Test func infoSaysThatTheBackingFileIsMissing() throws {
        try writeFile(directory.path("base.raw"), [1])
        #expect(try qedUblk("create", "image.qed", "--backing", "base.raw", "--backing-format", "raw").status == 0)
        try FileManager.default.removeItem(atPath: directory.path("base.raw"))
        let result = try qedUblk("info", "image.qed")
        #expect(result.status == 0)
        #expect(result.output.contains("backing file: base.raw (missing)\n"))
    }

    /// qemu-img never shows this flag, which the header has in its byte 16.
    @Test func infoShowsNeedCheck() throws {
        #expect(try qedUblk("create", "image.qed", "1G").status == 0)
        #expect(try qedUblk("info", "image.qed").output.contains("need check: no\n"))
        var bytes = try readFile(directory.path("image.qed"))
        bytes[16] = 2
        try writeFile(directory.path("image.qed"), bytes)
        let human = try qedUblk("info", "image.qed").output
        #expect(human.contains("features: need-check\nneed check: yes\n"))
        #expect(try qedUblk("info", "image.qed", "--output", "json").output.contains("\"dirty-flag\": true"))
    }
}

/// Every way to fail has its sentence and its status, and leaves nothing.
@Suite struct FailureTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let arguments: [String]
        let status: Int32
        let sentence: String

        var testDescription: String { arguments.joined(separator: " ") }
    }

    static let cases = [
        Case(arguments: ["info", "none.qed"], status: 4, sentence: "none.qed: no such file"),
        Case(
            arguments: ["info", "text"], status: 2,
            sentence: "text is not a QED image: the file does not start with the QED magic bytes"),
        Case(
            arguments: ["info", "directory"], status: 2,
            sentence: "directory: not a regular file; give the path of an image file"),
        Case(
            arguments: ["create", "text", "1G"], status: 3,
            sentence: "text: already exists; remove it or choose another name, or replace it with --force"),
        Case(
            arguments: ["create", "new.qed"], status: 64,
            sentence: "new.qed: an image without a backing file needs a size, such as 20G"),
        Case(
            arguments: ["create", "new.qed", "65T"], status: 64,
            sentence:
                "new.qed: cannot create such an image: the image size is 71468255805440 bytes, but this cluster and "
                + "table size allow 70368744177664 at most"),
        Case(
            arguments: ["create", "new.qed", "16E"], status: 64,
            sentence: "The value '16E' is invalid for '<size>': it is more than 2^64 bytes; see 'qed-ublk --help'"),
        Case(
            arguments: ["create", "new.qed", "1G", "--cluster-size", "5000"], status: 64,
            sentence:
                "new.qed: cannot create such an image: the cluster size is 5000 bytes, but must be a power of two "
                + "from 4096 to 67108864"),
        Case(
            arguments: ["create", "none/new.qed", "1G"], status: 4,
            sentence: "none/new.qed: its directory does not exist; create it first"),
        Case(
            arguments: ["create", "/sys/new.qed", "1G"], status: 5,
            sentence: "/sys/new.qed: no permission to create a file there"),
        Case(
            arguments: ["create", "new.qed", "--backing", "none", "--backing-format", "raw"], status: 4,
            sentence: "backing file none: no such file"),
        Case(
            arguments: ["create", "new.qed", "--backing", "text", "--backing-format", "qed"], status: 2,
            sentence: "backing file text is not a QED image: the file does not start with the QED magic bytes"),
        Case(
            arguments: ["create", "new.qed", "--backing", "text"], status: 64,
            sentence: "--backing needs --backing-format raw or --backing-format qed; see 'qed-ublk --help'"),
        Case(
            arguments: ["create", "new.qed", "1G", "--backing-format", "raw"], status: 64,
            sentence: "--backing-format needs --backing with the name of the backing file; see 'qed-ublk --help'"),
        Case(
            arguments: ["frobnicate"], status: 64, sentence: "Unexpected argument 'frobnicate'; see 'qed-ublk --help'"),
    ]

    @Test("one sentence and a status", arguments: cases)
    func failure(failing: Case) throws {
        let directory = try TemporaryDirectory()
        try writeFile(directory.path("text"), Array("no image".utf8))
        try directory.makeDirectory("directory")
        let before = try directory.contents()
        let result = try run([try QedUblkProgram.path()] + failing.arguments, in: directory.path)
        #expect(result.status == failing.status)
        #expect(result.output == "")
        #expect(result.errors == "qed-ublk: \(failing.sentence)\n")
        #expect(try directory.contents() == before)
    }

    @Test func helpSucceedsAndDocumentsTheStatuses() throws {
        let directory = try TemporaryDirectory()
        let result = try QedUblkProgram.run("--help", in: directory)
        #expect(result.status == 0)
        #expect(result.errors == "")
        for status in [0, 1, 2, 3, 4, 5, 6, 64] {
            #expect(
                result.output.split(separator: "\n").contains {
                    $0.hasPrefix(status < 10 ? "   \(status)  " : "  64  ")
                })
        }
    }

    /// The limit on file sizes makes the first write fail, or, unless it is ignored, kill the process with SIGXFSZ.
    @Test func writeErrorsAndKillsLeaveNothing() throws {
        let directory = try TemporaryDirectory()
        let program = try QedUblkProgram.path()
        let failed = try run(
            ["sh", "-c", "trap '' XFSZ; ulimit -f 8; exec \"$1\" create new.qed 1G", "sh", program], in: directory.path)
        #expect(failed.status == 1)
        #expect(failed.errors == "qed-ublk: new.qed: cannot write the file: File too large\n")
        #expect(try directory.contents().isEmpty)

        let killed = try run(
            ["sh", "-c", "ulimit -f 8; exec env --default-signal=XFSZ \"$1\" create new.qed 1G", "sh", program],
            in: directory.path)
        #expect(killed.status == -25)
        #expect(try directory.contents().isEmpty)
    }

    @Test func fullStandardOutputIsAnError() throws {
        let directory = try TemporaryDirectory()
        let program = try QedUblkProgram.path()
        try require([program, "create", "new.qed", "1G"], in: directory.path)
        let result = try run(["sh", "-c", "exec \"$1\" info new.qed > /dev/full", "sh", program], in: directory.path)
        #expect(result.status == 1)
        #expect(result.errors == "qed-ublk: cannot write to standard output: No space left on device\n")
    }
}
