import BlockStorage
import Foundation
import Platform
import TestSupport
import Testing

/// An image whose server died and left writes that only its log has: no command changes it or takes its place.
@Suite struct UnfinishedSessionTests {
    let directory: TemporaryDirectory

    init() throws {
        directory = try TemporaryDirectory()
        for (name, size) in [("base.qed", "4M"), ("other.qed", "4M")] { try require(ours("create", name, size)) }
        try require(ours("create", "--backing", "base.qed", "--backing-format", "qed", "image.qed"))
        try require(ours("io", "image.qed", "write -P 3 1M 64k"))
    }

    private func ours(_ arguments: String...) throws -> CommandResult {
        try run([try QedUblkProgram.path()] + arguments, in: directory.path)
    }

    private func require(_ result: CommandResult) throws { try #require(result.status == 0, "\(result.errors)") }

    /// As a killed server leaves the header: NEED_CHECK, the log's bit, and the note.
    private func leaveSession(in name: String, boot: BootIdentity?) throws {
        let path = directory.path(name)
        var bytes = try Data(contentsOf: URL(fileURLWithPath: path))
        bytes[16] |= 2
        bytes[39] |= 0x80
        if let boot {
            let words = [boot.high, boot.low, 7].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) } }
            bytes.replaceSubrange(448..<480, with: Array("qed-sess".utf8) + words)
        }
        try bytes.write(to: URL(fileURLWithPath: path))
    }

    private func currentBoot() throws -> BootIdentity {
        let current: BootIdentity? = BootIdentity.current
        return try #require(current)
    }

    static let changes: [[String]] = [
        ["resize", "image.qed", "8M"], ["resize", "--shrink", "image.qed", "2M"], ["commit", "image.qed"],
        ["rebase", "-b", "other.qed", "-F", "qed", "image.qed"], ["rebase", "-u", "-b", "other.qed", "-F", "qed", "image.qed"],
        ["flatten", "image.qed"], ["compact", "image.qed"], ["check", "-r", "leaks", "image.qed"],
        ["check", "-r", "all", "image.qed"], ["io", "image.qed", "write 0 4k"], ["io", "-f", "raw", "image.qed", "write 0 4k"],
        ["bench", "-w", "-c", "1", "image.qed"], ["convert", "-n", "-O", "qed", "other.qed", "image.qed"],
        ["convert", "-n", "-O", "raw", "other.qed", "image.qed"], ["convert", "--force", "-O", "qed", "other.qed", "image.qed"],
        ["create", "--force", "image.qed", "4M"], ["resize", "-f", "raw", "image.qed", "+1M"],
    ]

    @Test(arguments: changes) func nothingIsChanged(_ command: [String]) throws {
        try leaveSession(in: "image.qed", boot: try currentBoot())
        let before = try directory.contents()
        let result = try run([try QedUblkProgram.path()] + command, in: directory.path)
        // check has the statuses of qemu-img.
        #expect(result.status == (command[0] == "check" ? 1 : 3), "\(result.errors)")
        #expect(result.errors.contains("has left writes that are not in the image yet"), "\(result.errors)")
        #expect(result.errors.split(separator: "\n").count == 1)
        #expect(try directory.contents() == before)
    }

    @Test func norIsTheBackingFileThatIsWritten() throws {
        try leaveSession(in: "base.qed", boot: try currentBoot())
        let before = try directory.contents()
        let result = try ours("commit", "image.qed")
        #expect(result.status == 3 && result.errors.contains("base.qed: its server died"), "\(result.errors)")
        #expect(try directory.contents() == before)
    }

    private static let reads: [[String]] = [
        ["io", "image.qed", "read -P 3 1M 64k"], ["map", "image.qed"], ["compare", "image.qed", "image.qed"],
        ["convert", "-O", "raw", "image.qed", "copy.raw"], ["measure", "image.qed"], ["bench", "-c", "1", "image.qed"],
    ]

    /// A copy without what was acknowledged would look like one with it.
    @Test(arguments: reads, ["image.qed", "base.qed"]) func nobodyReadsPastTheLog(_ command: [String], _ file: String) throws {
        try leaveSession(in: file, boot: try currentBoot())
        let before = try directory.contents()
        let result = try run([try QedUblkProgram.path()] + command, in: directory.path)
        // compare has the statuses of qemu-img.
        #expect(result.status == (command[0] == "compare" ? 2 : 3), "\(result.errors)")
        #expect(result.errors.contains("\(file): its server died and has left writes"), "\(result.errors)")
        #expect(try directory.contents() == before)
        let shared = try run([try QedUblkProgram.path(), command[0], "--force-share"] + command.dropFirst(), in: directory.path)
        #expect(shared.status == 0, "\(shared.errors)")
    }

    @Test func whatIsNotTheDiskCanBeAsked() throws {
        try leaveSession(in: "image.qed", boot: try currentBoot())
        for command in [["info", "image.qed"], ["check", "image.qed"]] {
            #expect(try run([try QedUblkProgram.path()] + command, in: directory.path).status == 0)
        }
    }

    @Test func afterAPowerCutEverythingGoes() throws {
        try leaveSession(in: "image.qed", boot: BootIdentity(high: 1, low: 2))
        let result = try ours("resize", "image.qed", "8M")
        #expect(result.status == 0, "\(result.errors)")
    }

    /// Nobody can tell: an image with a long name of its backing file, say.
    @Test func withoutANoteItIsForTheUserToSay() throws {
        try leaveSession(in: "image.qed", boot: nil)
        #expect(try ours("resize", "image.qed", "8M").status == 3)
        #expect(try ours("check", "--force", "image.qed").status == 64)
        let result = try ours("check", "-r", "leaks", "--force", "image.qed")
        #expect(result.status == 0, "\(result.errors)")
        #expect(try ours("resize", "image.qed", "8M").status == 0)
        #expect(try ours("io", "image.qed", "read -P 3 1M 64k").status == 0)
    }
}
