import BlockStorage
import Foundation
import Platform
import TestSupport
import Testing

/// One file has one identity, whatever path leads to it, and no other file has it.
@Suite struct FileIdentityTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func file(_ name: String) throws -> FileIdentity {
        try writeFile(directory.path(name), [1])
        return try #require(FileIdentity(ofFileAt: directory.path(name)))
    }

    @Test func pathsOfOneFileAgree() throws {
        let identity = try file("a")
        try FileManager.default.createSymbolicLink(atPath: directory.path("b"), withDestinationPath: "a")
        try FileManager.default.linkItem(atPath: directory.path("a"), toPath: directory.path("c"))
        for name in ["a", "b", "c", "./a"] { #expect(FileIdentity(ofFileAt: directory.path(name)) == identity) }
        try FileManager.default.moveItem(atPath: directory.path("a"), toPath: directory.path("d"))
        #expect(FileIdentity(ofFileAt: directory.path("d")) == identity)
        #expect(FileIdentity(ofFileAt: directory.path("a")) == nil)
        let opened = try ImageFile(path: directory.path("d"), access: .readOnly, caching: .buffered, lock: nil)
        #expect(opened.identity == identity)
    }

    /// A file system hands a number out again, soon as a rule.
    @Test func filesDifferAlsoOneAfterTheOther() throws {
        var seen: Set<FileIdentity> = []
        for number in 0..<64 {
            #expect(seen.insert(try file("a\(number)")).inserted)
            if number % 2 == 0 { try FileManager.default.removeItem(atPath: directory.path("a\(number)")) }
        }
    }

    @Test func whatIsNoOrdinaryFileHasOneToo() throws {
        try require(["mkfifo", directory.path("fifo")])
        let fifo = try #require(FileIdentity(ofFileAt: directory.path("fifo")))
        let itself = try #require(FileIdentity(ofFileAt: directory.path(".")))
        #expect(fifo != itself)
        #expect(FileIdentity(ofFileAt: "/proc/self/status") != nil)
    }

    @Test func textIsTheSameIdentity() {
        let identity = FileIdentity(high: 0x12, low: .max)
        #expect(identity.description == "0000000000000012ffffffffffffffff")
        #expect(FileIdentity(identity.description) == identity)
        for text in ["", "12", "+000000000000012ffffffffffffffff", "0000000000000012FFFFFFFFFFFFFFFF", "\(identity)0"] {
            #expect(FileIdentity(text) == nil, "\(text)")
        }
    }

    @Test func theBootIsKnown() throws {
        let boot = try #require(BootIdentity.current)
        let text = try String(contentsOfFile: BootIdentity.path, encoding: .utf8)
        let digits = text.replacing("-", with: "").trimmingCharacters(in: .whitespacesAndNewlines)
        #expect(FileIdentity(high: boot.high, low: boot.low).description == digits)
    }
}
