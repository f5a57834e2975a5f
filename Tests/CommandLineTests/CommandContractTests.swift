import Foundation
import Glibc
import TestSupport
import Testing

/// What every command keeps, stamped on all of them alike.
@Suite struct CommandContractTests {
    /// A command that opens a file, with arguments that are right but for that file.
    struct Command: Sendable, CustomTestStringConvertible {
        var name: String
        /// FILE stands for the file, OTHER for a sound image, NEW for a name that is free.
        var arguments: [String]
        /// The statuses of a file that is missing, no image, in use, and not permitted.
        var missing: Int32 = 4
        var unusable: Int32 = 2
        var inUse: Int32 = 3
        var notPermitted: Int32 = 5
        /// It takes no lock.
        var ignoresLocks = false
        var writes = false

        var testDescription: String { ([name] + arguments).joined(separator: " ") }
    }

    static let openers: [Command] = [
        Command(name: "info", arguments: ["FILE"], ignoresLocks: true),
        Command(name: "info", arguments: ["--backing-chain", "FILE"], ignoresLocks: true),
        Command(name: "check", arguments: ["FILE"], missing: 1, unusable: 1, inUse: 1, notPermitted: 1),
        Command(
            name: "check", arguments: ["-r", "all", "FILE"], missing: 1, unusable: 1, inUse: 1, notPermitted: 1,
            writes: true),
        Command(name: "map", arguments: ["FILE"]),
        Command(name: "measure", arguments: ["FILE"]),
        Command(name: "compare", arguments: ["FILE", "OTHER"], missing: 2, inUse: 2, notPermitted: 2),
        Command(name: "compare", arguments: ["OTHER", "FILE"], missing: 2, inUse: 2, notPermitted: 2),
        Command(name: "convert", arguments: ["FILE", "NEW"]),
        Command(name: "convert", arguments: ["-n", "-O", "qed", "OTHER", "FILE"], writes: true),
        Command(name: "io", arguments: ["FILE", "read 0 4k"]),
        Command(name: "io", arguments: ["FILE", "write 0 4k"], writes: true),
        Command(name: "resize", arguments: ["FILE", "20M"], writes: true),
        Command(name: "commit", arguments: ["FILE"], writes: true),
        Command(name: "rebase", arguments: ["-b", "OTHER", "-F", "qed", "FILE"], writes: true),
        Command(name: "rebase", arguments: ["-u", "-b", "OTHER", "-F", "qed", "FILE"], writes: true),
        Command(name: "flatten", arguments: ["FILE"], writes: true),
        Command(name: "compact", arguments: ["FILE"], writes: true),
        Command(name: "bench", arguments: ["-c", "1", "FILE"]),
        Command(
            name: "create", arguments: ["--backing", "FILE", "--backing-format", "qed", "NEW"], ignoresLocks: true),
    ]

    /// Those that make a device: they are tried with files that are wrong, and never get to it.
    static let servers: [Command] = [
        Command(name: "add", arguments: ["FILE"]), Command(name: "add", arguments: ["--read-only", "FILE"]),
        Command(name: "add", arguments: ["--foreground", "FILE"]),
    ]

    static let names =
        Array(Set(openers.map(\.name))).sorted() + [
            "add", "del", "list", "recover", "snapshot", "fork", "rollback", "snapshots", "stats", "metrics", "top", "status",
            "doctor", "warm", "cache",
        ]

    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try require(["qemu-img", "create", "-q", "-f", "qed", "other.qed", "10M"], in: directory.path)
    }

    private func run(_ command: Command, on file: String, as user: Int? = nil) throws -> CommandResult {
        let arguments = command.arguments.map {
            switch $0 {
            case "FILE": file
            case "OTHER": "other.qed"
            case "NEW": "new"
            default: $0
            }
        }
        let sandbox = user.map { ["setpriv", "--reuid=\($0)", "--regid=\($0)", "--clear-groups", "--"] } ?? []
        return try TestSupport.run(
            sandbox + [try QedUblkProgram.path(), command.name] + arguments, in: directory.path)
    }

    private func expectOneSentence(_ result: CommandResult, _ status: Int32, naming file: String) throws {
        #expect(result.status == status, "\(result.errors)")
        #expect(result.output == "")
        #expect(result.errors.hasPrefix("qed-ublk: ") && result.errors.hasSuffix("\n"))
        #expect(result.errors.split(separator: "\n").count == 1)
        #expect(result.errors.contains(file))
    }

    @Test("help has an example and the statuses", arguments: names)
    func help(name: String) throws {
        let result = try QedUblkProgram.run(name, "--help", in: directory)
        #expect(result.status == 0)
        #expect(result.errors == "")
        #expect(result.output.contains("Example: "))
        let lines = result.output.split(separator: "\n").map(String.init)
        #expect(lines.contains("Exit status:"))
        #expect(lines.contains { $0.hasPrefix("   0  ") } && lines.contains { $0.hasPrefix("  64  ") })
        #expect(try QedUblkProgram.run(name, "-h", in: directory).output == result.output)
        let list = try QedUblkProgram.run("--help", in: directory).output
        #expect(list.contains("  \(name) "))
    }

    @Test("an unknown option is wrong usage", arguments: names)
    func unknownOption(name: String) throws {
        let result = try QedUblkProgram.run(name, "--no-such-option", in: directory)
        try expectOneSentence(result, 64, naming: "qed-ublk --help")
    }

    @Test("a missing file", arguments: openers + servers)
    func missing(_ command: Command) throws {
        let before = try directory.contents()
        try expectOneSentence(try run(command, on: "none.qed"), command.missing, naming: "none.qed")
        #expect(try directory.contents() == before)
    }

    @Test("what is no image", arguments: openers + servers, ["directory", "tiny", "text", "fifo"])
    func noImage(_ command: Command, file: String) throws {
        try directory.makeDirectory("directory")
        try writeFile(directory.path("tiny"), [0x51])
        try writeFile(directory.path("text"), Array(repeating: 65, count: 100_000))
        try require(["mkfifo", directory.path("fifo")])
        let before = try directory.contents()
        try expectOneSentence(try run(command, on: file), command.unusable, naming: file)
        #expect(try directory.contents() == before)
    }

    @Test("an image in use", arguments: openers.filter { !$0.ignoresLocks })
    func inUse(_ command: Command) throws {
        try FileManager.default.copyItem(atPath: directory.path("other.qed"), toPath: directory.path("file.qed"))
        let before = try directory.contents()
        let holder = try ImageHolder(directory.path("file.qed"))
        try expectOneSentence(try run(command, on: "file.qed"), command.inUse, naming: "file.qed")
        holder.release()
        #expect(try directory.contents() == before)
    }

    @Test("a file that may not be opened", arguments: openers + servers)
    func notPermitted(_ command: Command) throws {
        try FileManager.default.copyItem(atPath: directory.path("other.qed"), toPath: directory.path("file.qed"))
        try require(["chmod", "000", directory.path("file.qed")])
        try require(["chmod", "777", directory.path])
        let before = try directory.contents()
        let program = try QedUblkProgram.path()
        // The build directory may lie where another user cannot go.
        try require(["install", "-m", "755", program, directory.path("program")])
        defer { _ = try? FileManager.default.removeItem(atPath: directory.path("program")) }
        let sandbox = getuid() == 0 ? ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"] : []
        let arguments = command.arguments.map {
            $0 == "FILE" ? "file.qed" : $0 == "OTHER" ? "other.qed" : $0 == "NEW" ? "new" : $0
        }
        let result = try TestSupport.run(
            sandbox + [directory.path("program"), command.name] + arguments, in: directory.path)
        // Where the other file is opened first, and for writing, it is that which may not be.
        #expect(result.status == command.notPermitted, "\(result.errors)")
        #expect(result.errors.split(separator: "\n").count == 1)
        #expect(result.output == "")
        try FileManager.default.removeItem(atPath: directory.path("program"))
        #expect(try directory.contents() == before)
    }

    @Test("JSON is JSON", arguments: openers)
    func json(_ command: Command) throws {
        try FileManager.default.copyItem(atPath: directory.path("other.qed"), toPath: directory.path("file.qed"))
        if command.name == "commit" {
            try require(
                ["qemu-img", "rebase", "-u", "-b", "other.qed", "-F", "qed", "file.qed"], in: directory.path)
        }
        for words in [["--output", "json"], ["--json"]] {
            var asJSON = command
            asJSON.arguments = words + command.arguments
            let result = try run(asJSON, on: "file.qed")
            #expect(result.status == 0, "\(result.errors)")
            #expect(result.errors == "")
            #expect(throws: Never.self) { try JSONSerialization.jsonObject(with: Data(result.output.utf8)) }
            try? FileManager.default.removeItem(atPath: directory.path("new"))
        }
    }
}
