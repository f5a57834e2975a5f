import CSupport
import Glibc
import Platform
import SystemPackage

/// A confined server's way to its broker: another process of this program, which has kept its rights and does for that server's
/// own device what takes them. It parses nothing of the image.
///
/// One question after the other, from whichever thread; each blocks until it is answered.
final class Broker: DeviceRights {
    private let connection: Lock<Int32>
    private let path: String

    static let word = "broker"
    /// Of a line, either way.
    static let lineLimitBytes = 8192

    let isConfined = true

    /// Starts it. While the server still may, and when the device's record says whose it is.
    init(ofDevice id: UInt32, at path: String, watchesMounts: Bool) throws(ServerError) {
        self.path = path
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw .notConfined("no broker", Errno(rawValue: errno))
        }
        connection = Lock(ends[0])
        var process: Int32 = 0
        let words = [OwnDiskProcess.name, Broker.word, String(id)] + (watchesMounts ? ["own-mounts"] : [])
        let result = withArgumentVector(words) { cs_spawn_self($0, STDERR_FILENO, ends[1], &process) }
        close(ends[1])
        guard result == 0 else { throw .notConfined("no broker", Errno(rawValue: -result)) }
        // It says so when it is ready.
        guard case .done? = reply(on: ends[0]) else { throw .broker("it did not start") }
    }

    deinit { connection.withLock { _ = close($0) } }

    private func ask(_ request: BrokerRequest) throws(ServerError) -> BrokerReply {
        let answer = connection.withLock { connection -> BrokerReply? in
            guard Broker.send(request.json, to: connection) else { return nil }
            return reply(on: connection)
        }
        switch answer {
        case .failed(let sentence)?: throw .broker(sentence)
        case let answer?: return answer
        case nil:
            throw .broker("it is gone; kill process \(getpid()), and 'qed-ublk recover' gives \(path) another server")
        }
    }

    private func reply(on connection: Int32) -> BrokerReply? {
        guard let line = readLine(from: connection, limitBytes: Broker.lineLimitBytes) else { return nil }
        return JSONValue(parsing: line).flatMap { BrokerReply($0) }
    }

    // MARK: - What it does

    func describe(_ shape: DiskShape) throws(ServerError) { _ = try ask(.describe(shape)) }

    func start() throws(ServerError) -> [String] {
        guard case .sentences(let missing) = try ask(.start) else { throw .broker("it answered something else") }
        return missing
    }

    func endRecovery() throws(ServerError) { _ = try ask(.endRecovery) }

    func diskSizeBytes() throws(ServerError) -> UInt64 {
        guard case .size(let bytes) = try ask(.askSize) else { throw .broker("it answered something else") }
        return bytes
    }

    func growDisk(to sizeBytes: UInt64) throws(ServerError) { _ = try ask(.grow(toBytes: sizeBytes)) }

    /// - Parameter onceWritten: not called: a confined server has no base that could be away.
    func stop(force: Bool, timeoutSeconds: Int, onceWritten: () -> Void = {}) throws(ServerError) -> DiskUse? {
        switch try ask(.stop(force: force, timeoutSeconds: timeoutSeconds)) {
        case .inUse(let sentence): return DiskUse(path: path, user: .told(sentence))
        case .done: return nil
        default: throw .broker("it answered something else")
        }
    }

    func isMachineGoingDown() -> Bool { (try? ask(.isMachineGoingDown)) == .isGoingDown(true) }

    func flushDisk() -> [String] {
        do throws(ServerError) {
            guard case .sentences(let sentences) = try ask(.flushDisk) else { return ["\(path) was not flushed"] }
            return sentences
        } catch { return ["\(error)"] }
    }

    func note(_ note: DeviceNote, own: DeviceRecord) throws(ServerError) { _ = try ask(.note(note)) }

    func forgetDevice(isClosed: Bool) throws(ServerError) -> DiskWithdrawal.Remains {
        guard case .forgotten(let remains) = try ask(.forgetDevice(isClosed: isClosed)) else {
            throw .broker("it answered something else")
        }
        return remains
    }

    // MARK: - Lines

    static func send(_ json: JSONValue, to connection: Int32) -> Bool {
        (try? FileDescriptor(rawValue: connection).writeAll("\(json)\n".utf8)) != nil
    }
}
