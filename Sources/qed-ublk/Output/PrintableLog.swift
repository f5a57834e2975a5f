import Logging
import Platform

/// A log in which every message is one line, whatever names it holds: an image's path can have line breaks, and what follows
/// one would pass for the server's own word.
struct PrintableLog: LogHandler {
    private var log: any LogHandler

    init(_ log: any LogHandler) { self.log = log }

    /// To standard error.
    static func standardError(label: String) -> any LogHandler {
        PrintableLog(JournalLog() ?? StreamLogHandler.standardError(label: label))
    }

    func log(event: LogEvent) {
        var event = event
        event.message = Logger.Message(stringLiteral: event.message.description.printable)
        log.log(event: event)
    }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { log[metadataKey: key] }
        set { log[metadataKey: key] = newValue }
    }

    var metadata: Logger.Metadata {
        get { log.metadata }
        set { log.metadata = newValue }
    }

    var logLevel: Logger.Level {
        get { log.logLevel }
        set { log.logLevel = newValue }
    }
}
