import Glibc
import Platform
import Synchronization
import TestSupport

@testable import DeviceServer

/// A control socket's server with a poll loop on a thread of its own, as a device's server has it.
final class ServerThread: Sendable {
    typealias Handler = @Sendable (ControlRequest) -> ControlReply?

    private struct State: ~Copyable, @unchecked Sendable {
        // SAFETY: used by the thread alone until it has been joined.
        let server: ControlSocketServer
    }

    private let state: State
    private let handler: Handler
    private let isStopping = Atomic(false)
    private let thread: Mutex<pthread_t?> = Mutex(nil)
    private let taken = Mutex<[ControlRequest]>([])

    /// - Parameter handler: answers a request; nil: leaves it unanswered.
    init(_ directory: TemporaryDirectory, deviceID: UInt32 = 0, _ handler: @escaping Handler) throws {
        state = State(server: try ControlSocketServer(directory: directory.path, deviceID: deviceID))
        self.handler = handler
        let argument = Unmanaged.passUnretained(self).toOpaque()
        var created = pthread_t()
        pthread_create(
            &created, nil,
            { argument in
                if let argument { Unmanaged<ServerThread>.fromOpaque(argument).takeUnretainedValue().run() }
                return nil
            }, argument)
        thread.withLock { $0 = created }
    }

    private func run() {
        while !isStopping.load(ordering: .acquiring) {
            var watched = pollfd(fd: state.server.descriptor, events: Int16(POLLIN), revents: 0)
            poll(&watched, 1, 10)
            for arrival in state.server.acceptRequests() {
                taken.withLock { $0.append(arrival.request) }
                if let reply = handler(arrival.request) { state.server.reply(to: arrival.connection, reply) }
            }
        }
        state.server.close()
    }

    /// The requests that have arrived.
    var requests: [ControlRequest] { taken.withLock { $0 } }

    /// Ends the loop and closes the server. Call it before the last reference goes.
    func stop() {
        isStopping.store(true, ordering: .releasing)
        let thread = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        if let thread { pthread_join(thread, nil) }
    }
}

/// A client that does what no proper one does.
final class RawClient {
    let descriptor: Int32

    struct NoConnection: Error {}

    init(_ directory: TemporaryDirectory, deviceID: UInt32 = 0) throws {
        descriptor = try ControlSocketAddress.makeSocket()
        let address = ControlSocketAddress(directory: directory.path, deviceID: deviceID)
        while try address.withAddress({ connect(descriptor, $0, $1) }) != 0 {
            guard errno == EAGAIN else { throw NoConnection() }
            usleep(1000)
        }
        _ = fcntl(descriptor, F_SETFL, 0)
    }

    deinit { close(descriptor) }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        _ = Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    func endSending() { shutdown(descriptor, Int32(SHUT_WR)) }

    /// All that comes until the server closes the connection.
    func receiveAll() -> String {
        var content: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = recv(descriptor, &buffer, buffer.count, 0)
            if count <= 0 { return String(decoding: content, as: UTF8.self) }
            content += buffer[..<count]
        }
    }
}
