import Glibc
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import DeviceServer

@Suite struct MergedFilesTests {
    let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func file(_ name: String) throws -> MergedFiles.File {
        try directory.write("x", to: name)
        let path = directory.path(name)
        return MergedFiles.File(path: path, file: try #require(FileIdentity(ofFileAt: path)))
    }

    @Test func theyGoUnlessSomebodyElsesIsThere() throws {
        let files = [try file("a"), try file("b"), try file("c")]
        unlink(directory.path("b"))
        // It is there still, so nobody gets its number.
        #expect(rename(directory.path("c"), directory.path("held")) == 0)
        try directory.write("another", to: "c")
        try MergedFiles(files: files).remove()
        #expect(access(directory.path("a"), F_OK) != 0)
        #expect(try readFile(directory.path("c")) == Array("another".utf8))
        #expect(access(directory.path("held"), F_OK) == 0)
    }

    /// Where it cannot be told which file it is, that is no success, and the others go all the same.
    @Test func whatCannotBeLookedAtIsSaid() throws {
        let last = try file("last")
        // A link to itself can be followed by nobody.
        #expect(symlink("loop", directory.path("loop")) == 0)
        let unknown = MergedFiles.File(path: directory.path("loop/file"), file: last.file)
        #expect(throws: Errno.self) { try MergedFiles(files: [unknown, last]).remove() }
        #expect(access(directory.path("last"), F_OK) != 0)
    }
}
