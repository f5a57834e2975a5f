import BlockStorage
import CSupport
import Glibc
import Platform
import SystemPackage

/// The server's side of a device's control socket.
///
/// Never blocks, and so belongs into the poll loop of one thread: when `descriptor` is readable, `acceptRequests` hands
/// over the requests that are complete, and each gets its `reply` whenever its answer is there. Clients that are slow,
/// silent or gone cost a descriptor each, of which there are few.
public final class ControlSocketServer {
    /// Which client; never used twice.
    public struct ConnectionID: Hashable, Sendable {
        let number: UInt64
    }

    /// A request and whom to answer.
    public struct Arrival: Equatable, Sendable {
        public let request: ControlRequest
        public let connection: ConnectionID
    }

    public static let connectionLimit = 16

    /// Readable when `acceptRequests` has something to do: an epoll of the listening socket and its connections.
    public let descriptor: Int32
    public let path: String
    private let listener: Int32
    /// The file that `close` removes, so that it leaves a successor's in peace.
    private let file: FileIdentity?
    /// The server may not remove it any more, and somebody else does.
    var leavesFile = false
    /// By number, which is also age.
    private var connections: [UInt64: ControlConnection] = [:]
    private var lastNumber: UInt64 = 0
    private var isOpen = true
    private var isListening = true

    private static let listenerKey: UInt64 = 0

    /// Listens at ublkN.sock, which root alone may use. Replaces the socket of an earlier server.
    /// - Parameter directory: exists already: the device's record was written there first.
    /// - Throws: `pathTooLong` or `cannotListen`.
    public init(
        directory: String = DeviceRegistry.standardDirectory, deviceID: UInt32
    ) throws(ControlSocketError) {
        let address = ControlSocketAddress(directory: directory, deviceID: deviceID)
        path = address.path
        listener = try Self.listen(at: address)
        file = FileIdentity(ofFileAt: address.path)
        descriptor = cs_epoll_create()
        let result = descriptor < 0 ? descriptor : cs_epoll_add(descriptor, listener, CS_EPOLL_IN, Self.listenerKey)
        guard result == 0 else {
            close()
            throw .cannotListen(path: address.path, attempt: "watch", Errno(rawValue: -result))
        }
    }

    deinit { close() }

    /// Removes the socket; who is connected stays. Later calls do nothing.
    public func stopListening() {
        if isListening, !leavesFile, let file, FileIdentity(ofFileAt: path) == file { unlink(path) }
        endListening()
    }

    private func endListening() {
        guard isListening else { return }
        isListening = false
        // This ends its being watched, too.
        Glibc.close(listener)
    }

    /// Takes leave of all clients and removes the socket. Once; later calls do nothing.
    public func close() {
        stopListening()
        takeLeave()
    }

    /// The same, but the socket's file stays, in which nobody listens: that tells a server in its last step from one whose file
    /// somebody has removed. The next server replaces it.
    public func leave() {
        endListening()
        takeLeave()
    }

    private func takeLeave() {
        guard isOpen else { return }
        isOpen = false
        for connection in connections.values { Glibc.close(connection.descriptor) }
        connections.removeAll()
        if descriptor >= 0 { Glibc.close(descriptor) }
    }

    /// Takes new clients, reads and writes what is possible, and returns the requests that are complete now.
    public func acceptRequests() -> [Arrival] {
        var arrivals: [Arrival] = []
        // One turn for each; whoever is ready again by then waits for the next call.
        for _ in 0...Self.connectionLimit {
            var key: UInt64 = 0
            var events: UInt32 = 0
            guard cs_epoll_next(descriptor, &key, &events) == 1 else { break }
            if key == Self.listenerKey {
                acceptConnections()
            } else if let request = advance(key, events: events) {
                arrivals.append(Arrival(request: request, connection: ConnectionID(number: key)))
            }
        }
        return arrivals
    }

    /// Answers a request. The client may have gone; then nothing happens.
    package func reply(to connection: ConnectionID, _ reply: ControlReply) {
        guard connections[connection.number]?.state == .awaitingReply else { return }
        connections[connection.number]?.reply(reply)
        settle(connection.number)
    }

    // MARK: Connections

    private func acceptConnections() {
        while true {
            let client = accept(listener, nil, nil)
            guard client >= 0 else {
                switch errno {
                case EAGAIN: return
                case EINTR, ECONNABORTED: continue
                default:
                    // Out of descriptors or memory, and the caller's poll would return at once for ever.
                    evictOne()
                    usleep(10_000)
                    return
                }
            }
            _ = fcntl(client, F_SETFD, FD_CLOEXEC)
            if connections.count >= Self.connectionLimit { evictOne() }
            guard connections.count < Self.connectionLimit else {
                let reply = ControlReply.failure(.busy, "this device's server has too many clients; try again")
                _ = try? sendAvailable(client, reply.line[...])
                Glibc.close(client)
                continue
            }
            lastNumber += 1
            if cs_epoll_add(descriptor, client, CS_EPOLL_IN, lastNumber) == 0 {
                connections[lastNumber] = ControlConnection(descriptor: client)
            } else {
                Glibc.close(client)
            }
        }
    }

    /// Gives up the oldest client that has not sent its request, or does not take its reply.
    private func evictOne() {
        let candidates = connections.filter { $0.value.canBeEvicted }
        guard let number = candidates.keys.min() else { return }
        connections[number]?.hangUp()
        settle(number)
    }

    private func advance(_ number: UInt64, events: UInt32) -> ControlRequest? {
        guard let state = connections[number]?.state else { return nil }
        var request: ControlRequest?
        switch state {
        case .receiving: request = connections[number]?.receive()
        case .awaitingReply: if events & (CS_EPOLL_HUP | CS_EPOLL_ERR) != 0 { connections[number]?.hangUp() }
        case .sending: connections[number]?.send()
        case .finished: break
        }
        settle(number)
        return request
    }

    /// Watches a connection for what its state waits for, or closes it.
    private func settle(_ number: UInt64) {
        guard let connection = connections[number] else { return }
        switch connection.state {
        case .receiving: break
        // A client that has gone is always reported.
        case .awaitingReply: _ = cs_epoll_modify(descriptor, connection.descriptor, 0, number)
        case .sending: _ = cs_epoll_modify(descriptor, connection.descriptor, CS_EPOLL_OUT, number)
        case .finished:
            Glibc.close(connection.descriptor)
            connections[number] = nil
        }
    }

    /// A listening socket that nobody but its owner can connect to, from its first moment.
    private static func listen(at address: ControlSocketAddress) throws(ControlSocketError) -> Int32 {
        func failure(_ attempt: String) -> ControlSocketError {
            .cannotListen(path: address.path, attempt: attempt, Errno(rawValue: errno))
        }
        let socket: Int32
        do {
            socket = try ControlSocketAddress.makeSocket()
        } catch {
            throw .cannotListen(path: address.path, attempt: "create", error)
        }
        do throws(ControlSocketError) {
            // Linux gives the file the mode of the socket, less the umask.
            guard fchmod(socket, 0o600) == 0 else { throw failure("protect") }
            unlink(address.path)
            guard try address.withAddress({ bind(socket, $0, $1) }) == 0 else { throw failure("create") }
            guard Glibc.listen(socket, Int32(connectionLimit)) == 0 else { throw failure("listen at") }
        } catch {
            Glibc.close(socket)
            throw error
        }
        return socket
    }
}
