import Glibc
import Logging
import Testing

@testable import qed_ublk

@Suite struct PrintableLogTests {
    private final class Lines: @unchecked Sendable {
        // SAFETY: a test uses it on one thread.
        var lines: [String] = []
    }

    private struct Capture: LogHandler {
        let lines: Lines
        var metadata: Logger.Metadata = [:]
        var logLevel = Logger.Level.trace

        func log(event: LogEvent) { lines.lines.append("\(event.message)") }

        subscript(metadataKey key: String) -> Logger.Metadata.Value? {
            get { metadata[key] }
            set { metadata[key] = newValue }
        }
    }

    @Test("a name with line breaks stays in its line")
    func names() {
        let lines = Lines()
        let log = Logger(label: "test") { _ in PrintableLog(Capture(lines: lines)) }
        log.info("serving /a\n2026-01-01 error: \u{1b}[31mb.qed as /dev/ublkb0")
        log.warning("plain é")
        #expect(lines.lines == ["serving /a\\u{a}2026-01-01 error: \\u{1b}[31mb.qed as /dev/ublkb0", "plain é"])
    }

    @Test("the journal gets priorities, and the time is its own")
    func journal() throws {
        var ends: [Int32] = [-1, -1]
        try #require(pipe(&ends) == 0)
        defer { for end in ends { close(end) } }
        var status = stat()
        try #require(fstat(ends[1], &status) == 0)
        let stream = "\(status.st_dev):\(status.st_ino)"
        for other in [nil, "", "0:0", stream + "1"] { #expect(JournalLog(stream: other, descriptor: ends[1]) == nil) }
        let lines = Lines()
        let journal = try #require(JournalLog(stream: stream, descriptor: ends[1]) { lines.lines.append($0) })
        let log = Logger(label: "test") { _ in PrintableLog(journal) }
        log.info("serving\n<0>x")
        log.error("failed")
        log.debug("not shown")
        #expect(lines.lines == ["<6>serving\\u{a}<0>x\n", "<3>failed\n"])
    }
}
