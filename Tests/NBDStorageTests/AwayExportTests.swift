import BlockStorage
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import NBDStorage

/// Exports that were open before, and are away when they are opened again.
@Suite struct AwayExportTests {
    private let directory: TemporaryDirectory
    private let server: ScriptedServer
    private let changes = Lock<[String]>([])
    private static let sizeBytes: UInt64 = 1 << 20

    init() throws {
        directory = try TemporaryDirectory()
        server = try ScriptedServer(in: directory)
    }

    private func open(
        isQuick: Bool = false, timeoutMilliseconds: UInt64 = 60_000, patienceMilliseconds: UInt64 = 60_000
    ) throws -> NBDExport {
        let export = try NBDExport(
            NBDAddress(server.address), known: AwayExportTests.sizeBytes, isQuick: isQuick,
            timeout: timeoutMilliseconds * 1_000_000,
            patience: patienceMilliseconds * 1_000_000)
        export.whenItChanges { [changes] change in changes.withLock { $0.append("\(change)".prefix(4).description) } }
        return export
    }

    /// Asks for bytes that are data, on a thread of its own.
    private func read(_ export: NBDExport) throws -> (BackgroundThread, Lock<[UInt8]?>) {
        let result = Lock<[UInt8]?>(nil)
        let thread = try BackgroundThread {
            let bytes = try? export.readBytes(fileOffset: 4096, byteCount: 10)
            result.withLock { $0 = bytes }
        }
        return (thread, result)
    }

    private let expected = (UInt64(4096)..<4106).map(ScriptedServer.byte)

    @Test("there, it is as if it had been opened for the first time")
    func there() throws {
        defer { server.stop() }
        let export = try open()
        let fresh = try NBDExport(NBDAddress(server.address), timeout: nil)
        #expect(export.absence == nil && export.tellsHolesTruly && export.identity == fresh.identity)
        #expect(try export.readBytes(fileOffset: 4096, byteCount: 10) == expected)
        #expect(changes.withLock { $0 } == [])
    }

    @Test(
        "away, it has its size and its identity; it tells no holes, and reads wait for it", arguments: [false, true],
        [false, true])
    func comesBack(isSilent: Bool, isQuick: Bool) throws {
        defer { server.stop() }
        let identity = try NBDExport(NBDAddress(server.address), timeout: nil).identity
        server.state.withLock { state in
            state.isSilent = isSilent
            state.endsAfter = isSilent ? 0 : 1
        }
        let export = try open(isQuick: isQuick, patienceMilliseconds: isSilent ? 50 : 60_000)
        #expect(export.sizeBytes == AwayExportTests.sizeBytes && export.identity == identity)
        #expect(!export.tellsHolesTruly && export.nextData(from: 0) == nil)
        let absence = try #require(export.absence)
        #expect(!absence.isAnother && !absence.reason.isEmpty && absence.since > 1_700_000_000)
        let (thread, result) = try read(export)
        pause(.milliseconds(300))
        #expect(result.withLock { $0 } == nil)
        server.state.withLock { ($0.isSilent, $0.endsAfter) = (false, 0) }
        thread.join()
        #expect(result.withLock { $0 } == expected)
        let deadline = Deadline(after: .seconds(20))
        while isQuick, !export.tellsHolesTruly, !deadline.hasPassed { pause(.milliseconds(1)) }
        #expect(export.absence == nil && export.tellsHolesTruly && export.nextData(from: 0) == 4096..<8192)
        #expect(changes.withLock { $0 } == ["away", "back"])
    }

    @Test("it comes back with another size: what waited fails, and whatever is read later", arguments: [false, true])
    func comesBackAsAnother(isQuick: Bool) throws {
        defer { server.stop() }
        server.state.withLock { $0.endsAfter = 1 }
        let export = try open(isQuick: isQuick)
        let (thread, result) = try read(export)
        server.state.withLock { ($0.sizeBytes, $0.endsAfter) = (1 << 19, 0) }
        thread.join()
        #expect(result.withLock { $0 } == nil)
        #expect(throws: ImageFileError.self) { try export.readBytes(fileOffset: 4096, byteCount: 10) }
        #expect(export.absence?.isAnother == true && export.absence?.reason == "it has 524288 bytes now")
        #expect(export.sizeBytes == AwayExportTests.sizeBytes && !export.tellsHolesTruly)
        #expect(changes.withLock { $0 } == ["away", "anot"])
    }

    @Test("it is another one at once: by its identity it can be told")
    func isAnother() throws {
        defer { server.stop() }
        server.state.withLock { $0.sizeBytes = 1 << 19 }
        let export = try open()
        #expect(export.sizeBytes == 1 << 19)
        #expect(try export.identity == NBDExport(NBDAddress(server.address), timeout: nil).identity)
        #expect(throws: ImageFileError.self) { try export.readBytes(fileOffset: 4096, byteCount: 10) }
    }

    @Test("it never comes back: a read fails in time, with EIO")
    func staysAway() throws {
        server.stop()
        let export = try open(timeoutMilliseconds: 200)
        let start = ContinuousClock.now
        #expect(throws: ImageFileError.cannotRead(path: server.address, errno: .ioError)) {
            try export.readBytes(fileOffset: 4096, byteCount: 10)
        }
        #expect(ContinuousClock.now - start >= .milliseconds(200))
        #expect(changes.withLock { $0 } == ["away"])
    }

    @Test("nobody waits for it to end", arguments: [false, true])
    func ends(isSilent: Bool) throws {
        if isSilent { server.state.withLock { $0.isSilent = true } } else { server.stop() }
        defer { server.state.withLock { $0.isSilent = false } }
        let start = ContinuousClock.now
        do {
            let export = try open(patienceMilliseconds: 50)
            let (thread, result) = try read(export)
            pause(.milliseconds(50))
            export.failReads(true)
            thread.join()
            #expect(result.withLock { $0 } == nil)
        }
        #expect(ContinuousClock.now - start < .seconds(5))
    }

    @Test("left to others: what waits for it is given up, and what it has been asked for it answers", arguments: [false, true])
    func isLeft(isThere: Bool) throws {
        if !isThere { server.stop() }
        defer { if isThere { server.stop() } }
        let export = try open()
        if isThere {
            export.leaveReads()
            #expect(try export.readBytes(fileOffset: 4096, byteCount: 10) == expected)
        } else {
            let (thread, result) = try read(export)
            pause(.milliseconds(50))
            export.leaveReads()
            thread.join()
            #expect(result.withLock { $0 } == nil)
            #expect(throws: ImageFileError.cannotRead(path: server.address, errno: .canceled)) {
                try export.readBytes(fileOffset: 4096, byteCount: 10)
            }
        }
    }

    @Test("what failed because nobody waited is answered again")
    func readsAgain() throws {
        defer { server.stop() }
        let export = try open()
        export.failReads(true)
        #expect(throws: ImageFileError.self) { try export.readBytes(fileOffset: 4096, byteCount: 10) }
        export.failReads(false)
        #expect(try export.readBytes(fileOffset: 4096, byteCount: 10) == expected)
    }
}
