import Glibc
import SystemPackage

/// The client's side of a device's control socket.
enum ControlSocketClient {
    /// Sends one request and waits for its reply, blocking the thread until the deadline at most.
    /// - Parameter timeout: for all of it. For `stop`, longer than the timeout in the request.
    static func send(
        _ request: ControlRequest, deviceID: UInt32, directory: String = DeviceRegistry.standardDirectory,
        timeout: Duration
    ) throws(ControlSocketError) -> ControlReply {
        let line = Array(request.line.utf8) + [UInt8(ascii: "\n")]
        return try send(line, to: ControlSocketAddress(directory: directory, deviceID: deviceID), timeout: timeout)
    }

    static func send(
        _ line: [UInt8], to address: ControlSocketAddress, timeout: Duration
    ) throws(ControlSocketError) -> ControlReply {
        let answer = try answer(to: line, at: address, timeout: timeout)
        guard let reply = ControlReply(line: answer) else { throw .malformedReply(path: address.path) }
        return reply
    }

    /// - Returns: the line that is answered, without its end.
    static func answer(
        to line: [UInt8], at address: ControlSocketAddress, timeout: Duration
    ) throws(ControlSocketError) -> ArraySlice<UInt8> {
        let conversation = try Conversation(with: address, timeout: timeout)
        defer { conversation.end() }
        try conversation.connect()
        try conversation.send(line)
        return try conversation.receiveLine()
    }
}

/// One connection to a server, every step of which ends at the deadline.
private struct Conversation {
    private let address: ControlSocketAddress
    private let descriptor: Int32
    private let timeout: Duration
    private let deadline: ContinuousClock.Instant

    init(with address: ControlSocketAddress, timeout: Duration) throws(ControlSocketError) {
        self.address = address
        self.timeout = timeout
        deadline = ContinuousClock.now.advanced(by: min(timeout, .seconds(1_000_000)))
        do {
            descriptor = try ControlSocketAddress.makeSocket()
        } catch {
            throw .connectionFailed(path: address.path, error)
        }
    }

    func end() { close(descriptor) }

    func connect() throws(ControlSocketError) {
        while true {
            if try address.withAddress({ Glibc.connect(descriptor, $0, $1) }) == 0 { return }
            switch errno {
            case ENOENT: throw .noSocket(path: address.path)
            case ECONNREFUSED: throw .notServed(path: address.path)
            case EACCES, EPERM: throw .notPermitted(path: address.path)
            // The server has not taken those who came before.
            case EAGAIN: try wait(for: [], atMostMilliseconds: 10)
            case EINTR: continue
            case let code: throw .connectionFailed(path: address.path, Errno(rawValue: code))
            }
        }
    }

    func send(_ line: [UInt8]) throws(ControlSocketError) {
        var rest = line[...]
        while !rest.isEmpty {
            let count: Int
            do {
                count = try sendAvailable(descriptor, rest)
            } catch .brokenPipe, .connectionReset {
                // It has answered without reading all, or has ended: what can be received tells.
                return
            } catch {
                throw .connectionFailed(path: address.path, error)
            }
            rest = rest.dropFirst(count)
            if count == 0 { try wait(for: .output) }
        }
    }

    /// What comes before the first line end.
    func receiveLine() throws(ControlSocketError) -> ArraySlice<UInt8> {
        var content: [UInt8] = []
        while true {
            if let lineEnd = content.firstIndex(of: UInt8(ascii: "\n")) { return content[..<lineEnd] }
            guard content.count < ControlReply.limitBytes else { throw .malformedReply(path: address.path) }
            let count: Int?
            do {
                count = try receiveAvailable(descriptor, into: &content, limitBytes: ControlReply.limitBytes)
            } catch .connectionReset {
                throw .noReply(path: address.path)
            } catch {
                throw .connectionFailed(path: address.path, error)
            }
            switch count {
            case 0: throw .noReply(path: address.path)
            case nil: try wait(for: .input)
            default: break
            }
        }
    }

    private struct Readiness: OptionSet {
        let rawValue: Int16
        static let input = Readiness(rawValue: Int16(POLLIN))
        static let output = Readiness(rawValue: Int16(POLLOUT))
    }

    /// Waits until the socket is ready, or for the given time; for nothing at all where no readiness is asked for.
    private func wait(for readiness: Readiness, atMostMilliseconds: Int32 = .max) throws(ControlSocketError) {
        let remaining = ContinuousClock.now.duration(to: deadline).components
        let milliseconds = remaining.seconds * 1000 + remaining.attoseconds / 1_000_000_000_000_000
        guard remaining.seconds >= 0, remaining.attoseconds > 0 || remaining.seconds > 0 else {
            throw .timedOut(path: address.path, after: timeout)
        }
        var watched = pollfd(fd: readiness.isEmpty ? -1 : descriptor, events: readiness.rawValue, revents: 0)
        _ = poll(&watched, 1, min(Int32(clamping: milliseconds + 1), atMostMilliseconds))
    }
}
