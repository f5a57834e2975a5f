import SystemPackage

/// Why a control socket could not be made or did not bring an answer.
public enum ControlSocketError: Error, Equatable, Sendable {
    /// Longer than the 107 bytes that a socket's address holds.
    case pathTooLong(String)
    /// The server could not make its socket.
    case cannotListen(path: String, attempt: String, Errno)
    /// Nobody listens: the device is not served, or by another program.
    case notServed(path: String)
    /// There is none: as for `notServed`, or somebody has removed it.
    case noSocket(path: String)
    case notPermitted(path: String)
    case connectionFailed(path: String, Errno)
    /// The connection ended before the whole reply.
    case noReply(path: String)
    case timedOut(path: String, after: Duration)
    /// What came back is no reply, or longer than a reply may be.
    case malformedReply(path: String)

    /// Whether there is no server, or it went before it answered.
    public var serverHasEnded: Bool {
        switch self {
        case .notServed, .noSocket, .noReply: true
        default: false
        }
    }
}

extension ControlSocketError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .pathTooLong(let path):
            "the control socket's path \(path) is longer than 107 bytes; choose a shorter QED_UBLK_RUNTIME_DIR"
        case .cannotListen(let path, let attempt, let errno):
            "cannot \(attempt) the control socket \(path): \(errno)"
        case .noSocket(let path):
            "there is no control socket \(path): the server has ended, or the device is another program's"
        case .notServed(let path):
            "no server listens at \(path): it has ended, or the device is another program's"
        case .notPermitted(let path):
            "cannot connect to \(path): only root may control a device, so run this as root"
        case .connectionFailed(let path, let errno):
            "cannot talk to the server at \(path): \(errno)"
        case .noReply(let path):
            "the server at \(path) ended before it answered"
        case .timedOut(let path, let duration):
            "the server at \(path) did not answer within \(duration)"
        case .malformedReply(let path):
            "the server at \(path) answered something else than a reply; it may be of another version"
        }
    }
}
