import ArgumentParser
import BlockStorage
import Platform
import TestSupport
import Testing

@testable import qed_ublk

/// A file that belongs to a device which waits for its server: no command changes it or takes its place. What is refused is
/// the file's opening, so a command that comes later is refused as well.
@Suite struct ClaimedFileTests {
    private let directory: TemporaryDirectory

    /// Other tests of this process open files as well.
    private static let claimed = Lock<Set<FileIdentity>>([])

    init() throws {
        directory = try TemporaryDirectory()
        for words in [
            ["create", "base.qed", "4M"], ["create", "other.qed", "4M"],
            ["create", "--backing", "base.qed", "--backing-format", "qed", "image.qed"],
            ["io", "image.qed", "write -P 3 1M 64k"],
        ] {
            let result = try run([try QedUblkProgram.path()] + words, in: directory.path)
            try #require(result.status == 0, "\(result.errors)")
        }
        FileClaims.areFound { file in Self.claimed.withLock { $0.contains(file) } ? "/dev/ublkb7" : nil }
    }

    private func whileClaimed(_ name: String, _ body: (String) throws -> Void) throws {
        let path = directory.path(name)
        let found: FileIdentity? = FileIdentity(ofFileAt: path)
        let file = try #require(found)
        _ = Self.claimed.withLock { $0.insert(file) }
        defer { _ = Self.claimed.withLock { $0.remove(file) } }
        try body(path)
    }

    /// In this process.
    private func runHere(_ words: [String]) throws {
        var command = try QedUblk.parseAsRoot(words.map { $0.hasSuffix(".qed") ? directory.path($0) : $0 })
        try command.run()
    }

    private func isRefused(_ words: [String], because path: String) throws {
        let before = try directory.contents()
        do {
            try runHere(words)
            Issue.record("\(words) was done")
        } catch {
            #expect("\(error)".contains("\(path): belongs to /dev/ublkb7, which waits for a server"), "\(error)")
            // check has the statuses of qemu-img.
            #expect(ExitStatus(after: error) == (words[0] == "check" ? .failure : .busy))
        }
        #expect(try directory.contents() == before)
    }

    @Test(arguments: UnfinishedSessionTests.changes) func nothingIsChanged(_ words: [String]) throws {
        try whileClaimed("image.qed") { try isRefused(words, because: $0) }
    }

    @Test func norIsTheBackingFileThatIsWritten() throws {
        try whileClaimed("base.qed") { try isRefused(["commit", "image.qed"], because: $0) }
    }

    @Test func whoeverReadsItOrIsItsServerHasIt() throws {
        try whileClaimed("image.qed") { path in
            _ = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: .readOnly)
            let served = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable, isDevices: true)
            // As long as it has a server its lock tells who has it.
            do {
                _ = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
                Issue.record("it was opened twice")
            } catch ImageFileError.inUse {}
            served.releaseLock()
        }
    }
}
