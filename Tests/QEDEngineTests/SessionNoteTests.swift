import BlockStorage
import Foundation
import Platform
import QEDChain
import QEDFormat
import TestSupport
import Testing

@testable import QEDEngine

/// A server that died has left a log, or the power was cut: the header tells, and nobody goes on without a log that exists.
@Suite struct SessionNoteTests {
    private static let sizeBytes = MappingLog.sizeBytes(capacity: 4096)

    /// A log's memory, as a boot of the machine has it.
    private final class Memory {
        // SAFETY: `sizeBytes` long, freed in deinit, which the last engine of a test precedes.
        let address = UnsafeMutableRawPointer.allocate(byteCount: SessionNoteTests.sizeBytes, alignment: 4096)
        var boot: BootIdentity
        var image = FileIdentity(high: 1, low: 2)

        init(boot: BootIdentity = BootIdentity(high: 3, low: 4)) {
            self.boot = boot
            address.initializeMemory(as: UInt8.self, repeating: 0, count: SessionNoteTests.sizeBytes)
        }

        deinit { address.deallocate() }

        var session: SessionMemory {
            SessionMemory(
                address: address, sizeBytes: SessionNoteTests.sizeBytes,
                owner: MappingLog.Owner(image: image, boot: boot), newSession: .random(in: 1 ... .max))
        }
    }

    private let directory: TemporaryDirectory
    private let image: String

    init() throws {
        directory = try TemporaryDirectory()
        image = directory.path("image.qed")
        _ = try ImageCreation(path: image, sizeBytes: 64 << 20).create()
    }

    private func open(_ memory: Memory, continues: Bool = false, discards: Bool = false) throws -> LocalEngine {
        try LocalEngine(
            path: image,
            options: ImageOptions(session: memory.session, continuesSession: continues, discardsLostSession: discards))
    }

    private func transfer(_ engine: LocalEngine, _ operation: QEDEngine.BlockOperation, _ value: UInt8 = 0) -> Set<UInt8> {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 4096, alignment: 4096)
        defer { buffer.deallocate() }
        buffer.initializeMemory(as: UInt8.self, repeating: value, count: 4096)
        #expect(engine.perform([BlockRequest(operation, byteCount: 4096, buffer: buffer)]) == [0])
        return Set(UnsafeRawBufferPointer(start: buffer, count: 4096))
    }

    /// A server acknowledges a write and dies before any flush.
    private func killServer(_ memory: Memory) throws {
        let engine = try open(memory)
        _ = transfer(engine, .write, 9)
        engine.abandon()
    }

    private var content: Data { get throws { try Data(contentsOf: URL(fileURLWithPath: image)) } }
    private var note: [UInt8] { get throws { Array(try content[448..<512]) } }

    private func lost(_ reason: String) -> ImageOpenError { .logNotHere(reason: reason) }

    @Test func aLogThatIsGoneOnTheSameBootIsMissed() throws {
        try killServer(Memory())
        let before = try content
        #expect(throws: lost("its log is gone")) { try open(Memory()) }
        #expect(throws: ImageOpenError.sessionLost(reason: "its log is gone")) { try open(Memory(), continues: true) }
        #expect(try content == before)
        let engine = try open(Memory(), discards: true)
        #expect(transfer(engine, .read) == [0], "given up on purpose")
        try engine.close()
        try open(Memory()).close()
    }

    @Test func afterAPowerCutNothingIsMissed() throws {
        try killServer(Memory())
        let engine = try open(Memory(boot: BootIdentity(high: 3, low: 5)))
        #expect(transfer(engine, .read) == [0])
        try engine.close()
    }

    /// The log's memory is a file on a disk.
    @Test func aLogThatAPowerCutHasLeftIsNotBelieved() throws {
        let memory = Memory()
        try killServer(memory)
        memory.boot = BootIdentity(high: 3, low: 5)
        let engine = try open(memory)
        #expect(engine.image.replayedChanges == 0)
        #expect(transfer(engine, .read) == [0])
        engine.abandon()
        // And the next one on that boot goes on with what it made itself.
        _ = try open(memory).close()
    }

    @Test func theLogOfAnotherSessionOfTheFileIsNotBelieved() throws {
        let memory = Memory()
        try killServer(memory)
        let old = try content
        try open(memory).close()
        try killServer(Memory())
        // An older content in the same file, with the log of a later session beside it.
        let later = Memory()
        try Data(old).write(to: URL(fileURLWithPath: image))
        _ = MappingLog(formatting: later.address, capacity: 4096, for: later.session.owner, session: 77)
        #expect(throws: lost("the log that is here is another session's")) { try open(later) }
    }

    @Test func theRightLogIsReplayedAndTheNoteEnds() throws {
        let memory = Memory()
        try killServer(memory)
        #expect(try note.prefix(8) == Array("qed-sess".utf8)[...])
        for _ in 0..<2 {
            let engine = try open(memory, continues: true)
            #expect(transfer(engine, .read) == [9])
            engine.abandon()
        }
        let engine = try open(memory)
        #expect(transfer(engine, .read) == [9])
        try engine.close()
        #expect(try note.allSatisfy { $0 == 0 }, "a closed image has no trace of it")
    }

    @Test(arguments: [true, false]) func toolsAskTheNote(_ isThisBoot: Bool) throws {
        let current = try #require(BootIdentity.current)
        try killServer(Memory(boot: isThisBoot ? current : BootIdentity(high: 3, low: 4)))
        let before = try content
        if isThisBoot {
            #expect(throws: ImageOpenError.unfinishedSession) { try LocalEngine(path: image) }
            #expect(try content == before)
            try LocalEngine(path: image, options: ImageOptions(discardsLostSession: true)).close()
        }
        try LocalEngine(path: image).close()
    }

    /// Nobody can tell then.
    @Test func withoutANoteToolsRefuse() throws {
        try killServer(Memory())
        var bytes = try content
        bytes.replaceSubrange(448..<512, with: [UInt8](repeating: 0, count: 64))
        try bytes.write(to: URL(fileURLWithPath: image))
        #expect(throws: ImageOpenError.unfinishedSession) { try LocalEngine(path: image) }
        // For a server it is as it was before there were notes.
        try open(Memory()).close()
    }

    @Test func whatOthersHavePutThereStays() throws {
        var bytes = try content
        bytes[511] = 7
        try bytes.write(to: URL(fileURLWithPath: image))
        let memory = Memory()
        try killServer(memory)
        #expect(try note == [UInt8](repeating: 0, count: 63) + [7])
        let engine = try open(memory)
        #expect(transfer(engine, .read) == [9])
        try engine.close()
        #expect(try note == [UInt8](repeating: 0, count: 63) + [7])
    }

    @Test func aLongNameOfABackingFileStays() throws {
        let name = "./" + String(repeating: "x/../", count: 90) + "base"
        try FileManager.default.createDirectory(atPath: directory.path("x"), withIntermediateDirectories: false)
        try writeFile(directory.path("base"), [UInt8](repeating: 5, count: 4096))
        let overlay = ImageCreation(
            path: directory.path("overlay.qed"), sizeBytes: 64 << 20, backing: .init(name: name, format: .raw))
        _ = try overlay.create()
        let memory = Memory()
        let engine = try LocalEngine(path: overlay.path, options: ImageOptions(session: memory.session))
        _ = transfer(engine, .write, 9)
        engine.abandon()
        let stored = try Data(contentsOf: URL(fileURLWithPath: overlay.path))[64..<(64 + name.utf8.count)]
        #expect(Array(stored) == Array(name.utf8))
        let next = try LocalEngine(path: overlay.path, options: ImageOptions(session: memory.session))
        #expect(transfer(next, .read) == [9])
        try next.close()
    }

    /// QEMU does not know the note, and keeps it; what makes it valid it clears.
    @Test func qemuEndsTheSession() throws {
        let current = try #require(BootIdentity.current)
        try killServer(Memory(boot: current))
        try require(["qemu-io", "-f", "qed", image, "-c", "write -P 1 8M 64k"])
        #expect(try note.prefix(8) == Array("qed-sess".utf8)[...])
        try LocalEngine(path: image).close()
        try open(Memory(boot: current)).close()
    }
}
