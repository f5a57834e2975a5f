import Foundation
import TestSupport
import Testing

/// A system without /proc, as an image builder's chroot often is.
enum HiddenProc {
    /// Runs what follows with something empty in place of it.
    static let command = ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"]

    static var isPossible: Bool { (try? run(command + ["test", "!", "-e", "/proc/self"]))?.status == 0 }
}

/// Images work without /proc; what cannot says so.
@Suite(.enabled(if: HiddenProc.isPossible, "this system lets nobody mount anything"))
struct WithoutProcTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        try require(["qemu-img", "create", "-q", "-f", "qed", "other.qed", "10M"], in: directory.path)
        try require(["qemu-io", "-f", "qed", "other.qed", "-c", "write -P 7 1M 200k"], in: directory.path)
    }

    private func ours(_ arguments: [String], hidesProc: Bool = true) throws -> CommandResult {
        try run((hidesProc ? HiddenProc.command : []) + [try QedUblkProgram.path()] + arguments, in: directory.path)
    }

    @Test("a command does the same", arguments: CommandContractTests.openers)
    func same(command: CommandContractTests.Command) throws {
        var results: [CommandResult] = []
        var contents: [[String: [UInt8]]] = []
        for hidesProc in [false, true] {
            try FileManager.default.copyItem(atPath: directory.path("other.qed"), toPath: directory.path("file.qed"))
            if command.name == "commit" {
                try require(["qemu-img", "rebase", "-u", "-b", "other.qed", "-F", "qed", "file.qed"], in: directory.path)
            }
            let words = command.arguments.map {
                $0 == "FILE" ? "file.qed" : $0 == "OTHER" ? "other.qed" : $0 == "NEW" ? "new" : $0
            }
            results.append(try ours([command.name] + words, hidesProc: hidesProc))
            var files: [String: [UInt8]] = [:]
            for name in try FileManager.default.contentsOfDirectory(atPath: directory.path) {
                files[name] = try readFile(directory.path(name))
            }
            contents.append(files)
            try FileManager.default.removeItem(atPath: directory.path("file.qed"))
            try? FileManager.default.removeItem(atPath: directory.path("new"))
        }
        #expect(results[1].status == 0 && results[1].errors == "", "\(results[1].errors)")
        if command.name != "bench" { #expect(results[1].output == results[0].output) }
        #expect(contents[1] == contents[0])
    }

    @Test func newFiles() throws {
        for words in [
            ["create", "a.qed", "1M"], ["create", "--force", "a.qed", "2M"], ["convert", "--force", "other.qed", "a.qed"],
        ] {
            let result = try ours(words)
            #expect(result.status == 0 && result.output == "" && result.errors == "", "\(words): \(result.errors)")
        }
        #expect(try ours(["compare", "-f", "raw", "a.qed", "other.qed"]).status == 0)
        #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted() == ["a.qed", "other.qed"])
    }

    @Test(
        "what needs it says so",
        arguments: [["add", "other.qed"], ["add", "-f", "other.qed"], ["list"], ["del", "0"], ["recover", "--all"]])
    func devices(words: [String]) throws {
        let result = try ours(words)
        #expect(result.status == 1 && result.output == "")
        #expect(result.errors.contains("need /proc") && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    }

    @Test func directoriesOfBackingFiles() throws {
        try require(["qemu-img", "create", "-q", "-f", "qed", "-b", "other.qed", "-F", "qed", "top.qed"], in: directory.path)
        let result = try ours(["map", "--backing-dir", ".", "top.qed"])
        #expect(result.status == 1 && result.errors.contains("without /proc"), "\(result.errors)")
        #expect(try ours(["map", "top.qed"]).status == 0)
        let holder = try ImageHolder(directory.path("other.qed"))
        let inUse = try ours(["map", "top.qed"])
        #expect(inUse.status == 3 && inUse.errors.contains("in use by another program"), "\(inUse.errors)")
        holder.release()
    }

    @Test func helpAndUsage() throws {
        #expect(try ours(["--help"]).output == ours(["--help"], hidesProc: false).output)
        #expect(try ours(["frobnicate"]).status == 64)
    }
}

/// The command line as a whole.
@Suite struct CommandLineTests {
    @Test(
        "what is no command is wrong usage",
        arguments: [
            ([], "a command is needed"), (["help", "nonsense"], "there is no command 'nonsense'"),
            (["help", "create", "nonsense"], "there is no command 'nonsense'"), (["nonsense"], "nonsense"),
        ] as [([String], String)])
    func wrongUsage(words: [String], sentence: String) throws {
        let result = try run([try QedUblkProgram.path()] + words)
        #expect(result.status == 64 && result.output == "")
        #expect(result.errors.contains(sentence) && result.errors.split(separator: "\n").count == 1, "\(result.errors)")
    }

    @Test("help is help", arguments: [["help"], ["--help"], ["help", "create"], ["create", "--help"]])
    func help(words: [String]) throws {
        let result = try run([try QedUblkProgram.path()] + words)
        #expect(result.status == 0 && result.errors == "")
        #expect(result.output.contains(words.contains("create") ? "qed-ublk create" : "See 'qed-ublk help <subcommand>'"))
    }
}
