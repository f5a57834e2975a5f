import Glibc
import Logging
import SystemPackage

/// A log for systemd's journal, which has the time and the program's name itself: each line begins with its priority, as
/// sd-daemon(3) has them.
struct JournalLog: LogHandler {
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.info
    private let write: @Sendable (String) -> Void

    /// nil where standard error does not lead to the journal.
    /// - Parameter stream: what JOURNAL_STREAM says: device and inode of the stream that does.
    init?(
        stream: String? = getenv("JOURNAL_STREAM").map { String(cString: $0) }, descriptor: Int32 = STDERR_FILENO,
        write: @escaping @Sendable (String) -> Void = { _ = try? FileDescriptor.standardError.writeAll($0.utf8) }
    ) {
        var status = stat()
        guard let stream, fstat(descriptor, &status) == 0, stream == "\(status.st_dev):\(status.st_ino)" else { return nil }
        self.write = write
    }

    func log(event: LogEvent) { write("<\(JournalLog.priority(of: event.level))>\(event.message)\n") }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    /// Of syslog(3).
    private static func priority(of level: Logger.Level) -> Int32 {
        switch level {
        case .trace, .debug: LOG_DEBUG
        case .info: LOG_INFO
        case .notice: LOG_NOTICE
        case .warning: LOG_WARNING
        case .error: LOG_ERR
        case .critical: LOG_CRIT
        }
    }
}
