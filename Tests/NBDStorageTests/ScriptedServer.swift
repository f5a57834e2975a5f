import CSupport
import Glibc
import Platform
import Simulation
import TestSupport

/// An NBD server of a test's own, on a socket: an export whose odd pages are data and whose even ones are holes. What it says can
/// be spoilt by chance.
final class ScriptedServer: @unchecked Sendable {
    // SAFETY: `state` is locked; the listener is closed when the test has ended.
    struct State {
        var sizeBytes: UInt64 = 1 << 20
        /// Of how many bytes that are sent one is another; 0: none.
        var spoilsOneIn = 0
        /// What is sent ends after so many bytes; 0: nowhere.
        var endsAfter = 0
        /// It takes connections, and says nothing more.
        var isSilent = false
        var random = SeededRandom(seed: 0)
        /// Of a read, in bytes; and of the blocks in which it is asked for.
        var largestRead: UInt32 = 1 << 20
        var smallestBlock: UInt32 = 1
        var connections = 0
        var reads = 0
        /// What was asked for, with the number of the connection: "1 go", "1 read", "2 structured replies".
        var asked: [String] = []
        /// Whether it says that several connections see the same.
        var takesSeveralConnections = true
        /// More at once are ended at once; or, where `othersWait`, get their greeting when there is room.
        var mostConnections = Int.max
        var othersWait = false
        var openConnections = 0
        /// Whoever asks for structured replies is left.
        var refusesStructuredReplies = false
        /// Of connections with structured replies; nil: as of the others.
        var otherSizeBytes: UInt64?
    }

    static let pageBytes = 4096
    let address: String
    let state = Lock(State())
    private let listener: Int32
    private let path: String

    init(in directory: TemporaryDirectory) throws {
        path = directory.path + "/nbd"
        address = "nbd+unix:///?socket=\(path)"
        listener = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: path.utf8) }
        let bound = withUnsafePointer(to: &name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(listener, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        precondition(bound == 0 && listen(listener, 16) == 0, "no socket for the test's server")
        try BackgroundThread { [self] in serve() }.detach()
    }

    func stop() {
        shutdown(listener, Int32(SHUT_RDWR))
        unlink(path)
    }

    /// The byte at an offset of the export.
    static func byte(at offset: UInt64) -> UInt8 {
        offset / UInt64(pageBytes) % 2 == 0 ? 0 : UInt8(truncatingIfNeeded: offset &* 31 &+ offset / 4096)
    }

    private func serve() {
        while true {
            let accepted = accept(listener, nil, nil)
            guard accepted >= 0 else { return }
            let number = state.withLock { state in
                state.connections += 1
                return state.connections
            }
            var connection = Connection(server: self, descriptor: accepted, number: number)
            try? BackgroundThread { [self] in
                if hasRoom() {
                    connection.serve()
                    state.withLock { $0.openConnections -= 1 }
                }
                close(accepted)
            }.detach()
        }
    }

    private func hasRoom() -> Bool {
        while true {
            let (isTaken, othersWait) = state.withLock { state in
                guard state.openConnections < state.mostConnections else { return (false, state.othersWait) }
                state.openConnections += 1
                return (true, false)
            }
            guard !isTaken, othersWait else { return isTaken }
            pause(.milliseconds(5))
        }
    }

    private struct Connection {
        let server: ScriptedServer
        let descriptor: Int32
        /// From 1 on.
        let number: Int
        var sent = 0
        var hasStructuredReplies = false

        struct Ended: Error {}

        mutating func serve() { try? talk() }

        private mutating func talk() throws(Ended) {
            try send(big(0x4e42_444d_4147_4943) + big(0x4948_4156_454f_5054) + big(UInt16(3)))
            _ = try receive(4)
            while try handleOption() {}
            while true { try handleRequest() }
        }

        /// - Returns: whether options go on.
        private mutating func handleOption() throws(Ended) -> Bool {
            let head = try receive(16)
            let option = integer(head[8..<12])
            _ = try receive(Int(min(integer(head[12..<16]), 4096)))
            func reply(_ kind: UInt32, _ data: [UInt8] = []) -> [UInt8] {
                big(UInt64(0x3_e889_0455_65a9)) + big(UInt32(option)) + big(kind) + big(UInt32(data.count)) + data
            }
            note([7: "go", 8: "structured replies", 10: "holes"][option] ?? "option \(option)")
            let sizeBytes = server.state.withLock { hasStructuredReplies ? $0.otherSizeBytes ?? $0.sizeBytes : $0.sizeBytes }
            switch option {
            case 8:
                guard !server.state.withLock({ $0.refusesStructuredReplies }) else { throw Ended() }
                hasStructuredReplies = true
                try send(reply(1))
            case 10: try send(reply(4, big(UInt32(7)) + Array("base:allocation".utf8)) + reply(1))
            case 7:
                let (smallest, largest) = server.state.withLock { ($0.smallestBlock, $0.largestRead) }
                let flags: UInt16 = server.state.withLock { $0.takesSeveralConnections } ? 1 | 2 | 1 << 8 : 1 | 2
                try send(
                    reply(3, big(UInt16(0)) + big(sizeBytes) + big(flags))
                        + reply(3, big(UInt16(3)) + big(smallest) + big(max(smallest, 4096)) + big(largest)) + reply(1))
                return false
            default: try send(reply(0x8000_0001))
            }
            return true
        }

        private mutating func handleRequest() throws(Ended) {
            let request = try receive(28)
            let (kind, handle) = (integer(request[6..<8]), Array(request[8..<16]))
            let (offset, count) = (integer(request[16..<24]), integer(request[24..<28]))
            guard kind != 2, count <= 1 << 20 else { throw Ended() }
            func chunk(_ kind: UInt16, _ data: [UInt8]) -> [UInt8] {
                big(UInt32(0x668e_33ef)) + big(UInt16(1)) + big(kind) + handle + big(UInt32(data.count)) + data
            }
            note([0: "read", 7: "extents"][kind] ?? "request \(kind)")
            switch kind {
            case 0:
                let isAllowed = server.state.withLock { state in
                    state.reads += 1
                    return count <= UInt64(state.largestRead) && (offset | count) % UInt64(state.smallestBlock) == 0
                }
                guard isAllowed else { throw Ended() }
                let data = (offset..<offset + count).map(ScriptedServer.byte)
                try send(
                    hasStructuredReplies
                        ? chunk(1, big(offset) + data) : big(UInt32(0x6744_6698)) + big(UInt32(0)) + handle + data)
            case 7 where hasStructuredReplies:
                var extents: [UInt8] = big(UInt32(7))
                var position = offset
                let page = UInt64(ScriptedServer.pageBytes)
                while position < offset + count {
                    let end = min((position / page + 1) * page, offset + count)
                    extents += big(UInt32(end - position)) + big(UInt32(position / page % 2 == 0 ? 3 : 0))
                    position = end
                }
                try send(chunk(5, extents))
            default: throw Ended()
            }
        }

        private func note(_ question: String) { server.state.withLock { $0.asked.append("\(number) \(question)") } }

        private mutating func send(_ bytes: [UInt8]) throws(Ended) {
            var bytes = bytes
            while server.state.withLock({ $0.isSilent }) { pause(.milliseconds(5)) }
            let isCut = server.state.withLock { state in
                if state.spoilsOneIn > 0 {
                    for index in bytes.indices where state.random.chance(1, in: state.spoilsOneIn) {
                        bytes[index] = UInt8(truncatingIfNeeded: state.random.next())
                    }
                }
                return state.endsAfter > 0 && sent + bytes.count > state.endsAfter
            }
            if isCut { bytes.removeLast(bytes.count / 2) }
            sent += bytes.count
            guard Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == bytes.count, !isCut else {
                throw Ended()
            }
        }

        private func receive(_ count: Int) throws(Ended) -> [UInt8] {
            var bytes = [UInt8](repeating: 0, count: count)
            guard count == 0 || recv(descriptor, &bytes, count, Int32(MSG_WAITALL)) == count else { throw Ended() }
            return bytes
        }

        private func integer(_ bytes: ArraySlice<UInt8>) -> UInt64 { bytes.reduce(0) { $0 << 8 | UInt64($1) } }

        private func big<Number: FixedWidthInteger>(_ number: Number) -> [UInt8] {
            withUnsafeBytes(of: number.bigEndian) { Array($0) }
        }
    }
}
