import BlockStorage
import Glibc
import IOURing
import Platform
import Simulation
import SystemPackage
import TestSupport
import Testing

@testable import NBDStorage

@Suite struct NBDExportTests {
    private let directory: TemporaryDirectory
    private let server: ScriptedServer

    init() throws {
        directory = try TemporaryDirectory()
        server = try ScriptedServer(in: directory)
    }

    private func open(
        isQuick: Bool = false, timeoutMilliseconds: UInt64 = 5000, silenceMilliseconds: UInt64 = 5000
    ) throws -> NBDExport {
        try NBDExport(
            NBDAddress(server.address), isQuick: isQuick, timeout: timeoutMilliseconds * 1_000_000,
            longestSilence: silenceMilliseconds * 1_000_000)
    }

    private func expected(_ offset: UInt64, _ count: Int) -> [UInt8] {
        (offset..<offset + UInt64(count)).map(ScriptedServer.byte)
    }

    @Test("what was read, where it ends, and where holes are")
    func content() throws {
        defer { server.stop() }
        let export = try open()
        #expect(export.sizeBytes == 1 << 20 && export.tellsHolesTruly)
        #expect(try export.readBytes(fileOffset: 4000, byteCount: 9000) == expected(4000, 9000))
        #expect(try export.readBytes(fileOffset: (1 << 20) - 10, byteCount: 100) == expected((1 << 20) - 10, 10))
        #expect(try export.readBytes(fileOffset: 1 << 20, byteCount: 100) == [])
        #expect(export.nextData(from: 0) == 4096..<8192)
        #expect(export.nextData(from: 5000) == 5000..<8192)
        #expect(export.nextData(from: 1 << 20) == 1 << 20..<1 << 20)
    }

    @Test("a server of blocks, which gives little at once")
    func blocks() throws {
        defer { server.stop() }
        server.state.withLock {
            $0.largestRead = 65536
            $0.smallestBlock = 4096
        }
        let export = try open()
        for (offset, count) in [(0, 300_000), (1, 1), (4095, 2), (5000, 200_001), ((1 << 20) - 100_001, 100_001)] {
            #expect(try export.readBytes(fileOffset: UInt64(offset), byteCount: count) == expected(UInt64(offset), count))
        }
        #expect(export.nextData(from: 5000) == 5000..<8192)
    }

    @Test("many reads at once come as completions of the ring that asked, over several connections")
    func completions() throws {
        defer { server.stop() }
        let export = try open()
        let loop = try RingLoop(entries: 64, completionEntries: 256)
        defer { loop.close() }
        let storage = export.base(on: loop.ring)
        for round in 0..<20 {
            loop.run {
                await withTaskGroup(of: Bool.self) { group in
                    for number in 0..<64 {
                        group.addTask {
                            let offset = UInt64(number * 16000 + round)
                            let buffer = UnsafeMutableRawPointer.allocate(byteCount: 12000, alignment: 1)
                            defer { buffer.deallocate() }
                            let count = try? await storage.read(into: buffer, byteCount: 12000, fileOffset: offset)
                            return count == 12000
                                && Array(UnsafeRawBufferPointer(start: buffer, count: 12000)) == self.expected(offset, 12000)
                        }
                    }
                    for await isRight in group { #expect(isRight) }
                }
            }
        }
        #expect(server.state.withLock { $0.connections } == 4)
    }

    @Test(
        "a connection that ends, anywhere in what is sent, is made anew, and nobody notices",
        arguments: [8700, 9001, 12500, 20000], [false, true])
    func cut(after byteCount: Int, isQuick: Bool) throws {
        defer { server.stop() }
        let export = try open(isQuick: isQuick)
        server.state.withLock { $0.endsAfter = byteCount }
        for offset in stride(from: UInt64(0), to: 40000, by: 4000) {
            #expect(try export.readBytes(fileOffset: offset, byteCount: 4000) == expected(offset, 4000))
        }
    }

    @Test("without an answer a read fails in time; later ones are answered", arguments: [false, true])
    func timeout(isQuick: Bool) throws {
        let export = try open(isQuick: isQuick, timeoutMilliseconds: 300)
        let changes = Lock<[String]>([])
        export.whenItChanges { change in changes.withLock { $0.append("\(change)".prefix(4).description) } }
        server.state.withLock { $0.endsAfter = 1 }
        #expect(throws: ImageFileError.self) { try export.readBytes(fileOffset: 4096, byteCount: 10) }
        server.state.withLock { $0.endsAfter = 0 }
        let deadline = Deadline(after: .seconds(20))
        while (try? export.readBytes(fileOffset: 4096, byteCount: 10)) != expected(4096, 10), !deadline.hasPassed {}
        #expect(!deadline.hasPassed)
        #expect(changes.withLock { $0 } == ["away", "back"])
        server.stop()
    }

    @Test("when a read has waited in vain, others do not, until the server is back")
    func awayTooLong() throws {
        let export = try open(timeoutMilliseconds: 3000)
        server.state.withLock { $0.endsAfter = 1 }
        let deadline = Deadline(after: .seconds(20))
        for _ in 0..<20 {
            #expect(throws: ImageFileError.self) { try export.readBytes(fileOffset: 4096, byteCount: 10) }
        }
        // Twenty times three seconds are a minute.
        #expect(!deadline.hasPassed)
        server.state.withLock { $0.endsAfter = 0 }
        while (try? export.readBytes(fileOffset: 4096, byteCount: 10)) != expected(4096, 10), !deadline.hasPassed { usleep(1000) }
        #expect(!deadline.hasPassed)
        server.stop()
    }

    @Test("another size under the same name: what is read fails", arguments: [false, true])
    func another(isQuick: Bool) throws {
        defer { server.stop() }
        let export = try open(isQuick: isQuick, timeoutMilliseconds: 60_000)
        server.state.withLock {
            $0.sizeBytes = 1 << 19
            $0.endsAfter = 5000
        }
        var failures = 0
        for _ in 0..<4 where (try? export.readBytes(fileOffset: 4096, byteCount: 4000)) == nil { failures += 1 }
        #expect(failures > 0)
    }

    @Test("nobody there, and an end in the handshake: one sentence")
    func none() throws {
        server.state.withLock { $0.endsAfter = 40 }
        #expect(throws: NBDFailure.self) { try open() }
        server.stop()
        let failure = #expect(throws: NBDFailure.self) { try open() }
        #expect(failure?.description.contains("\n") == false && failure?.description.hasPrefix("nbd_") == false)
    }

    /// Whatever comes, the export is refused, or read, or not: within the time, without a trap, and without another's bytes. What
    /// was spoilt of data itself nobody can tell.
    @Test("a server that says anything", arguments: 0..<60, [false, true])
    func anything(seed: UInt64, isQuick: Bool) throws {
        defer { server.stop() }
        server.state.withLock {
            $0.random = SeededRandom(seed: seed)
            $0.spoilsOneIn = [30, 100, 300, 2000][Int(seed % 4)]
        }
        let started = Deadline(after: .seconds(20))
        guard let export = try? open(isQuick: isQuick, timeoutMilliseconds: 120, silenceMilliseconds: 40) else { return }
        for offset in stride(from: UInt64(0), to: 20000, by: 5000) {
            let bytes = try? export.readBytes(fileOffset: offset, byteCount: 700)
            #expect(bytes == nil || bytes?.count == min(700, Int(export.sizeBytes - min(offset, export.sizeBytes))))
            if let data = export.nextData(from: offset) { #expect(data.lowerBound >= offset || data.isEmpty) }
        }
        #expect(!started.hasPassed)
    }
}

@Suite struct DataSearchTests {
    private func search(_ answers: [[ExportExtent]], from start: UInt64 = 0, size: UInt64 = 1000) -> Range<UInt64>? {
        var search = DataSearch(from: start, sizeBytes: size)
        for answer in answers {
            guard search.next != nil else { break }
            guard search.learn(answer) else { return nil }
        }
        return search.found
    }

    @Test func found() {
        let (hole, data) = (ExportExtent(byteCount: 100, readsAsZeros: true), ExportExtent(byteCount: 100, readsAsZeros: false))
        #expect(search([[hole, data, data, hole]]) == 100..<300)
        #expect(search([[hole], [hole], [data]], from: 50) == 250..<350)
        #expect(search([[ExportExtent(byteCount: .max, readsAsZeros: true)]]) == 1000..<1000)
        #expect(search([[ExportExtent(byteCount: .max, readsAsZeros: false)]], from: 10) == 10..<1000)
        #expect(search([], from: 1000) == 1000..<1000)
        #expect(search([], from: 1200) == 1200..<1200)
        #expect(search([[]]) == nil)
        #expect(search([[ExportExtent(byteCount: 0, readsAsZeros: false)]]) == nil)
    }
}

@Suite struct NBDAddressTests {
    @Test(arguments: [
        "nbd://h/", "nbd://h:10809/a/b", "nbds://[::1]:1/x", "nbd+unix:///?socket=/run/x", "nbds+unix:///a%20b?socket=/s",
    ])
    func accepted(text: String) throws { #expect(try NBDAddress(text).text == text) }

    @Test(arguments: [
        "nbd://", "nbd:///", "nbd://h", "nbd://u@h/", "nbds://h/?tls-psk-file=/x", "nbd+unix://h/?socket=/x", "nbd+unix:///x",
        "nbd+unix:///?socket=x", "nbd+unix:///?socket=/x&tls-certificates=/y", "nbd+vsock://1/", "nbd+ssh://h/", "NBD://h/",
        "nbd://h/a b", "nbd://h/\u{e9}", "nbd://h/#x", "file:/x", "", "nbd:/x", "nbd://h/" + String(repeating: "a", count: 1100),
    ])
    func refused(text: String) { #expect(throws: NBDAddressError.self) { try NBDAddress(text) } }

    @Test(arguments: [
        ("nbd://nbds/", false), ("nbd+unix:///?socket=/s", false), ("nbds://h/", true), ("nbds+unix:///?socket=/s", true),
    ])
    func encrypted(text: String, expected: Bool) throws { #expect(try NBDAddress(text).isEncrypted == expected) }
}

@Suite struct CertificateFolderTests {
    @Test("root's is the machine's, whatever HOME is; others have their own, the first that has an authority")
    func candidates() throws {
        #expect(CertificateFolder.candidates(isRoot: true, home: "/home/me") == ["/etc/pki/libnbd"])
        #expect(CertificateFolder.candidates(isRoot: false, home: nil) == [])
        let directory = try TemporaryDirectory()
        let candidates = CertificateFolder.candidates(isRoot: false, home: directory.path)
        #expect(candidates == ["\(directory.path)/.pki/libnbd", "\(directory.path)/.config/pki/libnbd"])
        let failure = #expect(throws: NBDFailure.self) { try CertificateFolder.find(candidates) }
        #expect(failure?.description.contains("\(candidates[1])/ca-cert.pem") == true)
        for name in [".config", ".config/pki", ".config/pki/libnbd", ".pki", ".pki/libnbd"] { try directory.makeDirectory(name) }
        for name in [".config/pki/libnbd", ".pki/libnbd"] {
            try directory.write("", to: name + "/ca-cert.pem")
            #expect(try CertificateFolder.find(candidates) == directory.path(name))
        }
    }
}

@Suite struct ReconnectionTests {
    @Test("pauses grow up to a bound, and begin again after a success")
    func pauses() {
        var reconnection = Reconnection()
        #expect(reconnection.isDue(now: 0))
        var pauses: [UInt64] = []
        for _ in 0..<10 {
            reconnection.failed(now: 1000)
            pauses.append(reconnection.dueAt - 1000)
        }
        #expect(pauses.first == Reconnection.firstPause && pauses.last == Reconnection.longestPause)
        #expect(pauses == pauses.sorted())
        // Whoever is in a hurry waits no longer than after the first failure, however often.
        for _ in 0..<3 { reconnection.hurry() }
        #expect(reconnection.dueAt == 1000 + Reconnection.firstPause)
        reconnection.failed(now: 2000)
        #expect(reconnection.dueAt == 2000 + Reconnection.longestPause)
        reconnection.succeeded()
        #expect(reconnection == Reconnection())
    }
}
