import BlockStorage
import IOURing
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import NBDStorage

/// Exports whose first byte is to be there soon.
@Suite struct QuickExportTests {
    private let directory: TemporaryDirectory
    private let server: ScriptedServer
    private let changes = Lock<[String]>([])

    init() throws {
        directory = try TemporaryDirectory()
        server = try ScriptedServer(in: directory)
    }

    private func open() throws -> NBDExport {
        let export = try NBDExport(NBDAddress(server.address), isQuick: true, timeout: 20_000_000_000)
        export.whenItChanges { [changes] change in changes.withLock { $0.append("\(change)".prefix(4).description) } }
        return export
    }

    private let expected = (UInt64(12288)..<12298).map(ScriptedServer.byte)

    private func isRight(_ export: NBDExport) -> Bool { (try? export.readBytes(fileOffset: 12288, byteCount: 10)) == expected }

    /// Waits until the export tells where holes are.
    private func learn(_ export: NBDExport, while reads: () -> Void = {}) {
        let deadline = Deadline(after: .seconds(20))
        while !export.tellsHolesTruly, !deadline.hasPassed {
            reads()
            pause(.milliseconds(1))
        }
    }

    private func waitForConnections(_ count: Int) {
        let deadline = Deadline(after: .seconds(20))
        while server.state.withLock({ $0.openConnections != count }), !deadline.hasPassed { pause(.milliseconds(1)) }
        #expect(server.state.withLock { $0.openConnections } == count)
    }

    @Test("between the server's greeting and the first byte are two answers")
    func roundTrips() throws {
        defer { server.stop() }
        let export = try open()
        // Nobody asks for anything else before that, unless nobody has read for a second.
        #expect(isRight(export))
        #expect(server.state.withLock { Array($0.asked.prefix(2)) } == ["1 go", "1 read"])
    }

    @Test(
        "where holes are is known soon after the first byte, or a second later; the plain connection goes",
        arguments: [false, true])
    func holes(reads: Bool) throws {
        defer { server.stop() }
        let export = try open()
        #expect(!export.tellsHolesTruly && export.nextData(from: 0) == nil)
        if reads { #expect(isRight(export)) }
        learn(export)
        #expect(export.nextData(from: 0) == 4096..<8192 && isRight(export))
        waitForConnections(1)
        let asked = server.state.withLock { $0.asked }
        let questions = ["structured replies", "holes", "go", "extents", "read"].map { "2 " + $0 }
        #expect(asked == (reads ? ["1 go", "1 read"] : ["1 go"]) + questions)
        #expect(changes.withLock { $0 } == [])
    }

    @Test("whoever needs to know where holes are from the beginning has one connection, which tells")
    func whole() throws {
        defer { server.stop() }
        let export = try NBDExport(NBDAddress(server.address), timeout: nil)
        #expect(export.tellsHolesTruly && export.nextData(from: 0) == 4096..<8192 && isRight(export))
        #expect(server.state.withLock { $0.connections } == 1)
    }

    @Test("what is read meanwhile is asked for once, and right")
    func busy() throws {
        defer { server.stop() }
        let export = try open()
        let threads = try (0..<8).map { number in
            try BackgroundThread {
                for round in 0..<50 {
                    let offset = UInt64(8192 + number * 20000 + round * 100)
                    let bytes = try? export.readBytes(fileOffset: offset, byteCount: 3000)
                    #expect(bytes == (offset..<offset + 3000).map(ScriptedServer.byte))
                }
            }
        }
        for thread in threads { thread.join() }
        learn(export)
        #expect(export.tellsHolesTruly && server.state.withLock { $0.reads } == 400)
        #expect(changes.withLock { $0 } == [])
    }

    /// What a server does with a second connection.
    enum Room: CaseIterable { case none, noneThoughItSaysSo, later }

    @Test("a server with room for one connection gets the full one in the place of the plain one", arguments: Room.allCases)
    func room(_ room: Room) throws {
        defer { server.stop() }
        server.state.withLock { state in
            state.mostConnections = 1
            state.takesSeveralConnections = room == .noneThoughItSaysSo
            state.othersWait = room == .later
        }
        let export = try open()
        var areRight = true
        learn(export) { areRight = isRight(export) && areRight }
        #expect(areRight && export.nextData(from: 0) == 4096..<8192 && isRight(export))
        #expect(changes.withLock { $0 } == [] && export.absence == nil)
    }

    @Test("a server that takes no full connection is read all the same, over a plain one, also when that is lost")
    func plainOnly() throws {
        defer { server.stop() }
        server.state.withLock { $0.refusesStructuredReplies = true }
        let export = try open()
        #expect(isRight(export))
        let settled = 1 + 1 + QuickStart.attemptsInstead + 1
        func settle(_ connections: Int) {
            let deadline = Deadline(after: .seconds(20))
            while server.state.withLock({ $0.connections < connections }), !deadline.hasPassed {
                #expect(isRight(export))
                pause(.milliseconds(1))
            }
            pause(.milliseconds(300))
            #expect(server.state.withLock { $0.connections } == connections && isRight(export) && !export.tellsHolesTruly)
        }
        settle(settled)
        #expect(changes.withLock { $0 } == [])
        // The first answer after this is the last of its connection.
        server.state.withLock { $0.endsAfter = 1 }
        let reader = try BackgroundThread { #expect(isRight(export)) }
        waitForConnections(0)
        server.state.withLock { $0.endsAfter = 0 }
        reader.join()
        #expect(isRight(export))
    }

    @Test("a full connection finds another size than the plain one: whatever is read fails")
    func another() throws {
        defer { server.stop() }
        server.state.withLock { $0.otherSizeBytes = 1 << 19 }
        let export = try open()
        let deadline = Deadline(after: .seconds(20))
        while isRight(export), !deadline.hasPassed { pause(.milliseconds(1)) }
        #expect(!deadline.hasPassed && export.absence?.isAnother == true && !export.tellsHolesTruly)
        #expect(changes.withLock { $0 } == ["anot"])
    }
}

@Suite struct QuickStartTests {
    @Test("without haste all connections are full")
    func whole() {
        let start = QuickStart(isQuick: false)
        #expect(start.step == .over && !start.nextIsPlain && start.dueAt == nil && !start.makesRoom)
    }

    @Test("a full one follows the first answer, or a pause")
    func follows() {
        var start = QuickStart(isQuick: true)
        #expect(start.nextIsPlain && start.dueAt == nil)
        start.plainIsReady(now: 1000)
        #expect(!start.nextIsPlain && start.dueAt == 1000 + QuickStart.longestDelay)
        start.answered(now: 2000)
        #expect(start.dueAt == 2000)
        start.fullBegins()
        start.answered(now: 3000)
        #expect(start.dueAt == nil && start.step == .beside)
        start.fullIsReady()
        start.lost(isPlain: false, plainIsThere: false)
        #expect(start.step == .over)
    }

    @Test("refused beside the plain one it is tried in its place, and then the plain one comes back")
    func refused() {
        var start = QuickStart(isQuick: true)
        start.plainIsReady(now: 0)
        start.fullBegins()
        start.lost(isPlain: false, plainIsThere: true)
        for _ in 0..<QuickStart.attemptsInstead {
            #expect(start.makesRoom && !start.nextIsPlain)
            start.lost(isPlain: false, plainIsThere: false)
        }
        #expect(start.makesRoom && start.nextIsPlain)
        start.plainIsReady(now: 0)
        start.answered(now: 0)
        #expect(start.step == .plainOnly && start.dueAt == nil && !start.makesRoom)
        start.lost(isPlain: true, plainIsThere: false)
        #expect(start.step == .begins)
    }

    @Test("a server that is away is away: nothing is made room for")
    func away() {
        var start = QuickStart(isQuick: true)
        start.lost(isPlain: true, plainIsThere: false)
        #expect(start.step == .begins)
        start.plainIsReady(now: 0)
        start.fullBegins()
        start.lost(isPlain: true, plainIsThere: false)
        #expect(start.step == .beside && !start.makesRoom)
        start.lost(isPlain: false, plainIsThere: false)
        #expect(start.step == .begins && !start.makesRoom)
        for step in [QuickStart.Step.plain(dueAt: 0), .returns] {
            var start = QuickStart(isQuick: true)
            start.plainIsReady(now: 0)
            if step == .returns {
                start.fullBegins()
                for _ in 0...QuickStart.attemptsInstead { start.lost(isPlain: false, plainIsThere: true) }
                #expect(start.step == .returns)
            }
            start.lost(isPlain: true, plainIsThere: false)
            #expect(start.step == .begins && !start.makesRoom)
        }
    }

    @Test("a full connection is waited for less long where the server may have room for one")
    func patience() {
        var start = QuickStart(isQuick: true)
        let (usual, short) = (NBDExport.usualSilence, QuickStart.longestSilence)
        #expect(start.patience(usual, takesSeveralConnections: false) == usual)
        start.plainIsReady(now: 0)
        start.fullBegins()
        #expect(start.patience(usual, takesSeveralConnections: false) == short)
        #expect(start.patience(usual, takesSeveralConnections: true) == usual)
        #expect(start.patience(1, takesSeveralConnections: false) == 1)
        start.lost(isPlain: false, plainIsThere: true)
        #expect(start.patience(usual, takesSeveralConnections: true) == short)
    }
}
