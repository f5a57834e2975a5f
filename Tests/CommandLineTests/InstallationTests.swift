import Glibc
import TestSupport
import Testing

/// Where `make install` puts things, and what they say then.
@Suite struct InstallationTests {
    private static let repository = "/" + #filePath.split(separator: "/").dropLast(3).joined(separator: "/")

    let directory: TemporaryDirectory

    /// A copy of what is installed, with the program of the tests for the one that `make build` makes.
    init() throws {
        directory = try TemporaryDirectory()
        try require(["mkdir", "-p", directory.path("tree/.build/manual"), directory.path("tree/scripts")])
        try require(["cp", "\(Self.repository)/scripts/install-files", directory.path("tree/scripts")])
        let copied = ["README.md", "CHANGELOG.md", "NOTICE", "SECURITY.md", "docs", "packaging"].map {
            "\(Self.repository)/\($0)"
        }
        try require(["cp", "-r"] + copied + [directory.path("tree")])
        try require(["ln", "-s", try QedUblkProgram.path(), directory.path("tree/.build/qed-ublk")])
        // Newer than the program, so that it is not made: `scripts/test-package` looks at what it says.
        try directory.write("a page", to: "tree/.build/manual/qed-ublk.1")
    }

    private func install(_ arguments: String...) throws -> CommandResult {
        try run([directory.path("tree/scripts/install-files")] + arguments, in: directory.path)
    }

    @Test(arguments: [
        ("/usr", "usr/lib/systemd/system", "usr/lib/udev/rules.d"), ("/opt/qed", "etc/systemd/system", "etc/udev/rules.d"),
    ])
    func everythingIsInItsPlace(prefix: String, units: String, rules: String) throws {
        let result = try install(prefix, directory.path("stage"))
        #expect(result.status == 0 && result.errors == "", "\(result.errors)")
        let generators = units + "-generators"
        let share = "\(prefix.dropFirst())/share"
        for (path, mode) in [
            ("\(prefix.dropFirst())/bin/qed-ublk", 0o755), ("\(units)/qed-ublk@.service", 0o644),
            ("\(units)/qed-ublk-users.socket", 0o644), ("\(units)/qed-ublk-users@.service", 0o644),
            ("\(rules)/59-qed-ublk.rules", 0o644),
            ("\(share)/bash-completion/completions/qed-ublk", 0o644), ("\(share)/zsh/vendor-completions/_qed-ublk", 0o644),
            ("\(share)/fish/vendor_completions.d/qed-ublk.fish", 0o644), ("\(share)/doc/qed-ublk/docs/live.md", 0o644),
            ("\(share)/man/man7/qed-ublk.7", 0o644), ("\(share)/man/man1/qed-ublk.1", 0o644),
            ("\(generators)/qed-ublk-generator", 0o755), ("\(share)/man/man5/qed.5", 0o644),
        ] as [(String, UInt32)] {
            var status = stat()
            let path = directory.path("stage/\(path)")
            #expect(stat(path, &status) == 0 && status.st_mode & 0o777 == mode && status.st_size > 0, "\(path)")
        }
        let unit = String(decoding: try readFile(directory.path("stage/\(units)/qed-ublk@.service")), as: UTF8.self)
        #expect(unit.contains("\nExecStart=\(prefix)/bin/qed-ublk add --foreground --name %i $OPTIONS -- ${IMAGE}\n"))
        let rules = String(decoding: try readFile(directory.path("stage/\(rules)/59-qed-ublk.rules")), as: UTF8.self)
        #expect(rules.contains("\"\(prefix)/bin/qed-ublk list --export $kernel\""))
    }

    @Test func whatCannotBeInstalledIsRefused() throws {
        let relative = try install("usr", directory.path("stage"))
        #expect(relative.status == 64 && relative.errors.contains("must be an absolute path, not 'usr'"))
        try require(["rm", directory.path("tree/.build/qed-ublk")])
        let unbuilt = try install("/usr", directory.path("stage"))
        #expect(unbuilt.status == 1 && unbuilt.errors.contains("run make build"))
        #expect(access(directory.path("stage"), F_OK) != 0)
    }

    @Test("the manual is what man wants", arguments: ["qed-ublk.7", "qed.5"])
    func manual(_ page: String) throws {
        let result = try run([
            "env", "MANROFFSEQ=", "MANWIDTH=80", "LC_ALL=C.UTF-8", "man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z",
            "\(Self.repository)/packaging/man/\(page)",
        ])
        #expect(result.status == 0 && result.errors == "", "\(result.errors)")
    }
}
