import Foundation
import TestSupport
import Testing

/// `convert` into a pipe: a raw disk, and nothing else.
@Suite struct StandardOutputTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try require(["qemu-img", "create", "-q", "-f", "raw", "base.raw", "5M"], in: directory.path)
        try require(
            ["qemu-io", "-f", "raw", "base.raw", "-c", "write -P 1 0 100k", "-c", "write -P 2 3M 70000"], in: directory.path)
        try require(
            ["qemu-img", "create", "-q", "-f", "qed", "-b", "base.raw", "-F", "raw", "image.qed", "9437696"], in: directory.path)
        try require(
            [
                "qemu-io", "-f", "qed", "image.qed", "-c", "write -P 3 1M 200k", "-c", "write -z 3M 64k", "-c",
                "write -P 4 9M 512",
            ],
            in: directory.path)
        try require(["qemu-img", "convert", "-f", "qed", "-O", "raw", "image.qed", "expected"], in: directory.path)
    }

    /// Runs a line of the shell with the program as $0.
    private func shell(_ line: String) throws -> CommandResult {
        try run(["bash", "-c", "set -o pipefail; " + line, try QedUblkProgram.path()], in: directory.path)
    }

    @Test(
        "the disk arrives whole",
        arguments: [
            "\"$0\" convert image.qed - | cat > copy", "\"$0\" convert -p -O raw image.qed - > copy",
            "\"$0\" convert -m 1 image.qed /dev/stdout | cat > copy", "\"$0\" convert image.qed /dev/stdout > copy",
            "\"$0\" convert image.qed /dev/fd/7 7> copy",
            "mkfifo fifo; cat fifo > copy & \"$0\" convert image.qed fifo && wait $! && rm fifo",
            "\"$0\" convert -f raw expected - | \"$0\" convert -f raw -O qed - back.qed && \"$0\" convert back.qed copy "
                + "&& rm back.qed",
            // A pipe that does not wait.
            "perl -e 'use Fcntl; fcntl(STDOUT, F_SETFL, O_WRONLY | O_NONBLOCK); exec @ARGV' \"$0\" convert image.qed - "
                + "| (sleep 1; cat) > copy",
        ])
    func arrives(line: String) throws {
        let result = try shell(line)
        #expect(result.status == 0 && result.output == "" && result.errors == "", "\(result.errors)")
        #expect(try run(["cmp", "copy", "expected"], in: directory.path).status == 0)
        #expect(
            try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() == [
                "base.raw", "copy", "expected", "image.qed",
            ])
    }

    @Test(
        "what cannot be",
        arguments: [
            ("convert -O qed image.qed - | cat", 64, "-O raw"), ("convert --json image.qed - | cat", 64, "--json"),
            ("convert --verify image.qed /dev/stdout | cat", 64, "--verify"), ("convert -n image.qed - | cat", 64, "-n"),
            ("convert --force image.qed - | cat", 64, "--force"), ("convert -O qed image.qed /dev/fd/5 5>&1 | cat", 64, "-O raw"),
            ("convert -f raw - - | cat", 64, "-O qed"), ("convert none.qed - | cat", 4, "none.qed"),
            ("convert image.qed - > /dev/full", 1, "No space left"), ("convert image.qed - >&-", 1, "standard output"),
            ("convert -f raw expected - >> expected", 64, "is the source"),
            ("convert image.qed - | true", 1, "Broken pipe"),
        ] as [(String, Int32, String)])
    func refused(line: String, status: Int32, sentence: String) throws {
        let before = try directory.contents()
        let result = try shell("\"$0\" " + line)
        #expect(result.status == status && result.output == "", "\(result.errors)")
        #expect(result.errors.contains(sentence) && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
        #expect(try directory.contents() == before)
    }
}

/// What `--force` replaces keeps its owner and mode, and a symbolic link its place.
@Suite struct ReplacedFileTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try directory.makeDirectory("real")
        try require([try QedUblkProgram.path(), "create", "source.qed", "1M"], in: directory.path)
    }

    @Test(
        "a replaced file",
        arguments: [
            ["create", "--force", "link", "2M"], ["convert", "--force", "-O", "qed", "source.qed", "link"],
            ["convert", "--force", "source.qed", "link"],
        ],
        ["600", "640", "2664"])
    func keeps(words: [String], mode: String) throws {
        let file = directory.path("real/file")
        try writeFile(file, Array("before".utf8))
        try FileManager.default.createSymbolicLink(atPath: directory.path("link"), withDestinationPath: "real/file")
        if getuid() == 0 { try require(["chown", "65534:65533", file]) }
        try require(["chmod", mode, file])
        let before = try require(["stat", "-c", "%u %g %a", file])
        let result = try run([try QedUblkProgram.path()] + words, in: directory.path)
        #expect(result.status == 0, "\(result.errors)")
        #expect(try require(["stat", "-c", "%u %g %a", file]) == before)
        #expect(try require(["readlink", directory.path("link")]) == "real/file\n")
        #expect(try readFile(file) != Array("before".utf8))
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path("real")) == ["file"])
    }

    @Test(
        .enabled(if: getuid() == 0),
        arguments: [["create", "--force", "file", "2M"], ["convert", "--force", "source.qed", "file"]])
    func ownerThatCannotBeKept(words: [String]) throws {
        try writeFile(directory.path("file"), Array("before".utf8))
        try require(["chmod", "666", directory.path("file")])
        try require(["chmod", "777", directory.path])
        try require(["install", "-m", "755", try QedUblkProgram.path(), directory.path("program")])
        let before = try directory.contents()
        let result = try run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", directory.path("program")] + words,
            in: directory.path)
        #expect(result.status == 1 && result.errors.contains("cannot keep the owner"), "\(result.errors)")
        #expect(try directory.contents() == before)
    }
}
