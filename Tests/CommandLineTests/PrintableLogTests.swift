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
}
