import Glibc
import Platform
import SystemPackage
import TestSupport
import Testing

@testable import DeviceServer

@Suite(.timeLimit(.minutes(2)))
struct ControlSocketTests {
    private let directory: TemporaryDirectory

    init() throws { directory = try TemporaryDirectory() }

    private func send(
        _ request: ControlRequest, deviceID: UInt32 = 0, timeout: Duration = .seconds(60)
    ) throws(ControlSocketError) -> ControlReply {
        try ControlSocketClient.send(request, deviceID: deviceID, directory: directory.path, timeout: timeout)
    }

    private var socketPath: String { directory.path("ublk0.sock") }

    @Test func requestsAreAnswered() throws {
        let server = try ServerThread(directory) { request in
            request == .flush ? .failure(.failed, "disk full") : .success(["asked": .string(request.line)])
        }
        defer { server.stop() }
        let stop = ControlRequest.stop(force: true, timeoutSeconds: 7)
        #expect(try send(.status) == .success(["asked": "status"]))
        #expect(try send(.stats) == .success(["asked": "stats"]))
        #expect(try send(.flush) == .failure(.failed, "disk full"))
        #expect(try send(stop) == .success(["asked": "stop force timeout=7"]))
        #expect(server.requests == [.status, .stats, .flush, stop])
    }

    @Test func longRepliesArriveWhole() throws {
        let longest = ControlReply.success(.string(String(repeating: "x", count: 65_536 - 24)))
        let tooLong = ControlReply.success(.string(String(repeating: "x", count: 1 << 20)))
        let server = try ServerThread(directory) { $0 == .status ? longest : tooLong }
        defer { server.stop() }
        #expect(try send(.status) == longest)
        guard case .failure(.failed, _) = try send(.stats) else {
            Issue.record("a reply beyond the limit was sent")
            return
        }
    }

    @Test func answersMayComeLaterAndInAnotherOrder() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let first = try RawClient(directory)
        let second = try RawClient(directory)
        first.send("stop\n")
        var arrivals = arrive(server, count: 1)
        second.send("status\n")
        arrivals += arrive(server, count: 1)
        #expect(arrivals.map(\.request) == [.stop(force: false, timeoutSeconds: 30), .status])
        #expect(arrivals[0].connection != arrivals[1].connection)
        server.reply(to: arrivals[1].connection, .success("second"))
        #expect(second.receiveAll() == #"{"ok":true,"result":"second"}"# + "\n")
        server.reply(to: arrivals[0].connection, .success("first"))
        #expect(first.receiveAll() == #"{"ok":true,"result":"first"}"# + "\n")
        // Answered once is answered.
        server.reply(to: arrivals[0].connection, .success("again"))
    }

    /// Turns the server until this many requests have come.
    private func arrive(_ server: ControlSocketServer, count: Int) -> [ControlSocketServer.Arrival] {
        var arrivals: [ControlSocketServer.Arrival] = []
        while arrivals.count < count {
            var watched = pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0)
            poll(&watched, 1, -1)
            arrivals += server.acceptRequests()
        }
        return arrivals
    }

    @Test func requestMayComeInPiecesAndWithoutItsEnd() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let client = try RawClient(directory)
        for piece in ["s", "tat"] {
            client.send(piece)
            #expect(server.acceptRequests().isEmpty)
        }
        client.send("us\nrest that nobody reads")
        let arrival = try #require(arrive(server, count: 1).first)
        #expect(arrival.request == .status)
        server.reply(to: arrival.connection, .success(.null))
        #expect(client.receiveAll() == #"{"ok":true,"result":null}"# + "\n")

        let other = try RawClient(directory)
        other.send("flush")
        other.endSending()
        let second = try #require(arrive(server, count: 1).first)
        #expect(second.request == .flush)
        // It has ended its sending, not its listening.
        #expect(server.acceptRequests().isEmpty)
        server.reply(to: second.connection, .success(.null))
        #expect(other.receiveAll() == #"{"ok":true,"result":null}"# + "\n")
    }

    @Test func malformedRequestsAreAnsweredWithoutTheServer() throws {
        let server = try ServerThread(directory) { _ in .success(.null) }
        defer { server.stop() }
        for line in ["explode\n", "\n", "{\"command\":\"status\"}\n", "stop timeout=never\n", "\u{0}\u{1}\n"] {
            let client = try RawClient(directory)
            client.send(line)
            #expect(client.receiveAll().hasPrefix(#"{"ok":false,"code":"bad-request","#), "\(line)")
        }
        #expect(server.requests.isEmpty)
    }

    @Test func endlessRequestsAreCutOff() throws {
        let server = try ServerThread(directory) { _ in .success(.null) }
        defer { server.stop() }
        let client = try RawClient(directory)
        client.send(String(repeating: "x", count: 4096))
        #expect(client.receiveAll().contains("longer than 4096 bytes"))
        // The client of ours reads the answer although it could not send everything.
        let address = ControlSocketAddress(directory: directory.path, deviceID: 0)
        let endless = [UInt8](repeating: 0x78, count: 10 << 20)
        let reply = try ControlSocketClient.send(endless, to: address, timeout: .seconds(60))
        #expect(reply == .failure(.badRequest, "the request is longer than 4096 bytes"))
        // The longest that is taken.
        let longest = try RawClient(directory)
        longest.send("status" + String(repeating: " ", count: 4089) + "\n")
        #expect(longest.receiveAll() == #"{"ok":true,"result":null}"# + "\n")
        #expect(server.requests == [.status])
    }

    @Test func silentClientsKeepNobodyOut() throws {
        let server = try ServerThread(directory) { _ in .success("here") }
        defer { server.stop() }
        let silent = try (0..<3 * ControlSocketServer.connectionLimit).map { _ in try RawClient(directory) }
        let halfway = try RawClient(directory)
        halfway.send("sta")
        #expect(try send(.status) == .success("here"))
        // The latest of them may still speak.
        halfway.send("ts\n")
        #expect(halfway.receiveAll() == #"{"ok":true,"result":"here"}"# + "\n")
        #expect(silent.first?.receiveAll() == "")
    }

    @Test func clientsThatWaitForAnAnswerAreNotSentAway() throws {
        let server = try ServerThread(directory) { $0 == .status ? .success(.null) : nil }
        defer { server.stop() }
        let waiting = try (0..<ControlSocketServer.connectionLimit).map { _ in try RawClient(directory) }
        for client in waiting { client.send("flush\n") }
        while server.requests.count < waiting.count { usleep(1000) }
        guard case .failure(.busy, _) = try send(.status) else {
            Issue.record("a client too many was taken")
            return
        }
        // One goes, and its place is free.
        shutdown(waiting[5].descriptor, Int32(SHUT_RDWR))
        var reply = try send(.status)
        while case .failure(.busy, _) = reply { reply = try send(.status) }
        #expect(reply == .success(.null))
    }

    @Test func clientThatIsGoneIsNotMissed() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        do {
            let client = try RawClient(directory)
            client.send("flush\n")
        }
        let arrival = try #require(arrive(server, count: 1).first)
        server.reply(to: arrival.connection, .success(.null))
        do { _ = try RawClient(directory) }
        #expect(server.acceptRequests().isEmpty)
        let client = try RawClient(directory)
        client.send("status\n")
        let next = try #require(arrive(server, count: 1).first)
        server.reply(to: next.connection, .success("still here"))
        #expect(client.receiveAll().contains("still here"))
        // Nothing is left to do, or the caller's loop would never rest.
        #expect(server.acceptRequests().isEmpty)
        var watched = pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0)
        #expect(poll(&watched, 1, 0) == 0)
    }

    /// A client that does not read its reply gets the rest when it does, and costs no time until then.
    @Test func slowReaderGetsItsReplyInPieces() throws {
        var ends: [Int32] = [0, 0]
        try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue), 0, &ends) == 0)
        defer { for end in ends { close(end) } }
        var small: Int32 = 4096
        try #require(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, 4) == 0)
        var connection = ControlConnection(descriptor: ends[0])
        let reply = ControlReply.success(.string(String(repeating: "x", count: 60_000)))
        #expect(write(ends[1], "status\n", 7) == 7)
        #expect(connection.receive() == .status)
        connection.reply(reply)
        var received: [UInt8] = []
        var turns = 0
        while connection.state != .finished {
            guard case .sending(let rest) = connection.state else {
                Issue.record("\(connection.state)")
                return
            }
            #expect(!rest.isEmpty && connection.canBeEvicted)
            while try receiveAvailable(ends[1], into: &received, limitBytes: 65_537) != nil {}
            connection.send()
            turns += 1
        }
        while received.count < reply.line.count {
            _ = try receiveAvailable(ends[1], into: &received, limitBytes: 65_537)
        }
        #expect(turns > 1)
        #expect(received == reply.line)
    }

    // The socket's file.

    @Test func onlyItsOwnerMayConnect() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        var status = stat()
        #expect(lstat(server.path, &status) == 0)
        #expect(status.st_mode & S_IFMT == S_IFSOCK && status.st_mode & 0o777 == 0o600)
    }

    @Test func socketOfADeadServerIsReplaced() throws {
        try directory.write("stale", to: "ublk0.sock")
        let server = try ServerThread(directory) { _ in .success("new") }
        #expect(try send(.status) == .success("new"))
        server.stop()
        #expect(directory.names.isEmpty)
    }

    @Test func socketOfAServerThatLeavesStaysUntilTheNextOneComes() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        server.leave()
        server.close()
        #expect(directory.names == ["ublk0.sock"])
        #expect(throws: ControlSocketError.notServed(path: socketPath)) { try send(.status) }
        let next = try ServerThread(directory) { _ in .success("next") }
        #expect(try send(.status) == .success("next"))
        next.stop()
        #expect(throws: ControlSocketError.noSocket(path: socketPath)) { try send(.status) }
    }

    @Test func closingLeavesASuccessorsSocket() throws {
        let old = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let new = try ServerThread(directory) { _ in .success("new") }
        defer { new.stop() }
        old.close()
        old.close()
        #expect(try send(.status) == .success("new"))
    }

    @Test func serversOfTwoDevicesAreApart() throws {
        let first = try ServerThread(directory, deviceID: 1) { _ in .success(1) }
        let second = try ServerThread(directory, deviceID: 12) { _ in .success(12) }
        #expect(try send(.status, deviceID: 12) == .success(12))
        #expect(try send(.status, deviceID: 1) == .success(1))
        first.stop()
        second.stop()
    }

    @Test func socketThatCannotBeMadeIsAnError() throws {
        let path = directory.path("missing/ublk0.sock")
        #expect(throws: ControlSocketError.cannotListen(path: path, attempt: "create", .noSuchFileOrDirectory)) {
            try ControlSocketServer(directory: directory.path("missing"), deviceID: 0)
        }
        let long = directory.path(String(repeating: "d", count: 100))
        #expect(throws: ControlSocketError.pathTooLong("\(long)/ublk0.sock")) {
            try ControlSocketServer(directory: long, deviceID: 0)
        }
        #expect(throws: ControlSocketError.pathTooLong("\(long)/ublk0.sock")) {
            try ControlSocketClient.send(.status, deviceID: 0, directory: long, timeout: .seconds(1))
        }
    }

    // What a client may meet.

    @Test func nobodyListens() throws {
        #expect(throws: ControlSocketError.noSocket(path: socketPath)) { try send(.status) }
        // A file without a server behind it, as a killed one leaves it.
        let socket = try ControlSocketAddress.makeSocket()
        let address = ControlSocketAddress(directory: directory.path, deviceID: 0)
        #expect(try address.withAddress { bind(socket, $0, $1) } == 0)
        close(socket)
        #expect(throws: ControlSocketError.notServed(path: socketPath)) { try send(.status) }
    }

    @Test func serverDoesNotAnswer() throws {
        let server = try ServerThread(directory) { _ in nil }
        // On a busy machine the time may be over before the server has had its turn.
        repeat {
            #expect(throws: ControlSocketError.timedOut(path: socketPath, after: .milliseconds(50))) {
                try send(.status, timeout: .milliseconds(50))
            }
        } while server.requests.isEmpty
        #expect(server.requests.allSatisfy { $0 == .status })
        server.stop()
    }

    @Test func serverDoesNotEvenAccept() throws {
        // More clients than the backlog holds, so that one waits in connect and one for its reply.
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        for _ in 0..<ControlSocketServer.connectionLimit + 2 {
            #expect(throws: ControlSocketError.timedOut(path: socketPath, after: .milliseconds(5))) {
                try send(.status, timeout: .milliseconds(5))
            }
        }
        server.close()
    }

    @Test func serverEndsBeforeItAnswers() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let ending = ThreadOf {
            while server.acceptRequests().isEmpty { usleep(1000) }
            server.close()
        }
        #expect(throws: ControlSocketError.noReply(path: socketPath)) { try send(.status) }
        ending.join()
    }

    @Test(arguments: ["no reply\n", "{\"ok\":maybe}\n", String(repeating: "x", count: 70_000), ""])
    func serverAnswersSomethingElse(answer: String) throws {
        let listener = try ControlSocketAddress.makeSocket()
        defer { close(listener) }
        let address = ControlSocketAddress(directory: directory.path, deviceID: 0)
        try #require(try address.withAddress { bind(listener, $0, $1) } == 0)
        try #require(listen(listener, 1) == 0)
        let answering = ThreadOf {
            _ = fcntl(listener, F_SETFL, 0)
            let client = accept(listener, nil, nil)
            var request = [UInt8](repeating: 0, count: 64)
            _ = recv(client, &request, request.count, 0)
            var rest = Array(answer.utf8)[...]
            while !rest.isEmpty, let count = try? sendAvailable(client, rest) { rest = rest.dropFirst(count) }
            close(client)
        }
        let error = #expect(throws: ControlSocketError.self) { try send(.status) }
        #expect(error == (answer.isEmpty ? .noReply(path: socketPath) : .malformedReply(path: socketPath)))
        answering.join()
    }

    @Test func errorsAreOneSentence() {
        let errors: [ControlSocketError] = [
            .pathTooLong("/p"), .cannotListen(path: "/p", attempt: "create", .permissionDenied), .notServed(path: "/p"),
            .noSocket(path: "/p"),
            .notPermitted(path: "/p"), .connectionFailed(path: "/p", .ioError), .noReply(path: "/p"),
            .timedOut(path: "/p", after: .seconds(5)), .malformedReply(path: "/p"),
        ]
        #expect(Set(errors.map(\.description)).count == errors.count)
        for error in errors { #expect(error.description.contains("/p") && !error.description.contains("\n")) }
    }
}

/// A thread that does one thing.
final class ThreadOf: @unchecked Sendable {
    // SAFETY: what the body uses is not touched by the test before `join`.
    private let body: () -> Void
    private var thread = pthread_t()

    init(_ body: @escaping () -> Void) {
        self.body = body
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<ThreadOf>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, Unmanaged.passRetained(self).toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}
