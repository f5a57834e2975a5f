import CSupport
import Platform
import SystemPackage

/// What an export's thread is told by others, and what wakes it for that. Any thread.
final class ExportInbox: Sendable {
    /// How requests are to be answered, from now on.
    struct Wishes {
        /// The thread is to end.
        var isEnding = false
        /// Nobody waits any more: every request fails at once.
        var isFailing = false
        /// Nobody waits for a server that is away: see `NBDExport.leaveReads`.
        var isLeaving = false
    }

    private let content = Lock((requests: [ExportRequest](), wishes: Wishes()))
    /// Readable when there is something new.
    let descriptor: Int32

    init() throws(Errno) {
        descriptor = cs_eventfd()
        guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
    }

    deinit { cs_close(descriptor) }

    func submit(_ request: ExportRequest) {
        content.withLock { $0.requests.append(request) }
        cs_eventfd_signal(descriptor)
    }

    func wish(_ change: (inout Wishes) -> Void) {
        content.withLock { change(&$0.wishes) }
        cs_eventfd_signal(descriptor)
    }

    // MARK: - The thread's side

    /// The requests that are new, and all wishes.
    func take() -> (requests: [ExportRequest], wishes: Wishes) {
        content.withLock { content in
            defer { content.requests = [] }
            return content
        }
    }

    /// After `descriptor` was readable.
    func hear() { cs_eventfd_wait(descriptor) }
}
