import CSupport
import Glibc
import Platform
import Synchronization
import TestSupport
import Testing

@testable import DeviceServer

/// A flush that waits for its disk keeps nobody else from the server.
@Suite(.timeLimit(.minutes(2)))
struct SharedRepliesTests {
    /// A disk whose flushes begin, and end when they may.
    private final class SlowDisk: Sendable {
        private let began = cs_eventfd()
        private let mayEnd = cs_eventfd()
        private let count = Mutex(0)

        func flush() -> ControlReply {
            let number = count.withLock { count in
                count += 1
                return count
            }
            cs_eventfd_signal(began)
            cs_eventfd_wait(mayEnd)
            return .success(JSONValue(number))
        }

        func waitForBegin() { cs_eventfd_wait(began) }
        func letEnd() { cs_eventfd_signal(mayEnd) }
        var flushCount: Int { count.withLock { $0 } }
    }

    private let directory: TemporaryDirectory
    private let disk = SlowDisk()

    init() throws { directory = try TemporaryDirectory() }

    /// Takes one turn of a server's loop: answers what can be answered.
    private func turn(_ server: ControlSocketServer, _ flushes: SharedReplies) {
        var polled = [
            pollfd(fd: server.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: flushes.finished, events: Int16(POLLIN), revents: 0),
        ]
        poll(&polled, 2, -1)
        if polled[1].revents != 0 { for (request, reply) in flushes.takeAnswers() { server.reply(to: request, reply) } }
        guard polled[0].revents != 0 else { return }
        for arrival in server.acceptRequests() {
            if arrival.request == .flush {
                if let refusal = flushes.ask(arrival.connection) { server.reply(to: arrival.connection, refusal) }
            } else {
                server.reply(to: arrival.connection, .success("status"))
            }
        }
    }

    private func client(_ server: ControlSocketServer, _ flushes: SharedReplies, asks line: String) throws -> RawClient {
        let client = try RawClient(directory)
        turn(server, flushes)
        client.send("\(line)\n")
        turn(server, flushes)
        return client
    }

    @Test func othersAreAnsweredMeanwhile() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let flushes = SharedReplies(to: "flush", disk.flush)
        let first = try client(server, flushes, asks: "flush")
        disk.waitForBegin()
        #expect(flushes.isRunning)
        let status = try client(server, flushes, asks: "status")
        #expect(status.receiveAll() == #"{"ok":true,"result":"status"}"# + "\n")
        // What was written after the first flush had begun is not in it.
        let second = try client(server, flushes, asks: "flush")
        let third = try client(server, flushes, asks: "flush")
        #expect(disk.flushCount == 1)
        disk.letEnd()
        turn(server, flushes)
        #expect(first.receiveAll() == #"{"ok":true,"result":1}"# + "\n")
        disk.waitForBegin()
        disk.letEnd()
        turn(server, flushes)
        #expect(second.receiveAll() == #"{"ok":true,"result":2}"# + "\n")
        #expect(third.receiveAll() == #"{"ok":true,"result":2}"# + "\n")
        #expect(!flushes.isRunning && disk.flushCount == 2)
    }

    @Test func aDiskThatGoesLeavesNobodyWaiting() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let flushes = SharedReplies(to: "flush", disk.flush)
        let clients = try [client(server, flushes, asks: "flush"), client(server, flushes, asks: "flush")]
        disk.waitForBegin()
        for request in flushes.abandon() { server.reply(to: request, .failure(.failed, "gone")) }
        for client in clients { #expect(client.receiveAll() == #"{"ok":false,"code":"failed","error":"gone"}"# + "\n") }
        disk.letEnd()
    }

    @Test func clientsThatHaveGoneAreNotAnswered() throws {
        let server = try ControlSocketServer(directory: directory.path, deviceID: 0)
        let flushes = SharedReplies(to: "flush", disk.flush)
        var gone: RawClient? = try client(server, flushes, asks: "flush")
        disk.waitForBegin()
        _ = gone
        gone = nil
        turn(server, flushes)
        disk.letEnd()
        turn(server, flushes)
        #expect(try client(server, flushes, asks: "status").receiveAll() == #"{"ok":true,"result":"status"}"# + "\n")
    }
}
