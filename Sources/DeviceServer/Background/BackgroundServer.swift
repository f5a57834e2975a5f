import CSupport
import Glibc
import Platform
import SystemPackage

/// Starts the process that serves a device, and hears from it whether it does.
enum BackgroundServer {
    /// What the server tells `add`, in one line.
    enum Report: Equatable {
        case ready(String)
        /// The status that the program ends with after such an error, and the sentence.
        case failed(status: Int32, String)

        var line: String {
            switch self {
            case .ready(let path): "ready \(path)\n"
            case .failed(let status, let sentence): "failed \(status) \(sentence.printable)\n"
            }
        }

        init?(_ line: String) {
            let words = line.split(separator: " ", maxSplits: 2)
            if words.count == 2, words[0] == "ready" {
                self = .ready(String(words[1]))
            } else if words.count == 3, words[0] == "failed", let status = Int32(words[1]) {
                self = .failed(status: status, String(words[2]))
            } else {
                return nil
            }
        }
    }

    /// Longer than the control commands' own deadlines, so that their explanation comes first.
    private static let deadlineSeconds = 150

    /// A server whose device is usable. It takes the device away again when its `add` ends without `keep`: then nobody
    /// has learned the path.
    struct Ready {
        let path: String
        fileprivate let connection: FileDescriptor
        let process: Int32

        /// The path has reached somebody.
        func keep() throws(ServerStartError) {
            defer { try? connection.close() }
            do { _ = try connection.writeAll([1]) } catch {
                throw ServerStartError.died("it ended after it had made \(path)")
            }
        }

        /// Waits until the device is gone.
        func abandon() {
            try? connection.close()
            waitpid(process, nil, 0)
        }
    }

    /// A server that has been started, and has not reported yet.
    struct Start {
        fileprivate let process: Int32
        fileprivate let connection: FileDescriptor
        fileprivate let log: FileDescriptor
        fileprivate let deadline: Int
        fileprivate let memory: ControlGroupMemory

        /// Waits until its device is usable.
        func ready() throws(ServerStartError) -> Ready {
            defer { try? log.close() }
            var isReady = false
            defer { if !isReady { try? connection.close() } }
            switch try report(from: connection, until: deadline) {
            case .text(let text):
                guard let report = Report(text) else {
                    if let cause = memory.cause(ofDeath: .current) { throw ServerStartError.killed(cause) }
                    throw ServerStartError.died(ServerLog.lastWords(log))
                }
                switch report {
                case .ready(let path):
                    isReady = true
                    return Ready(path: path, connection: connection, process: process)
                case .failed(let status, let sentence):
                    // It undoes what it has done before it reports; let it end before we do.
                    waitpid(process, nil, 0)
                    throw ServerStartError.refused(status: status, sentence)
                }
            case .timedOut:
                kill(process, SIGTERM)
                sleep(5)
                kill(process, SIGKILL)
                throw ServerStartError.timedOut(seconds: deadlineSeconds)
            }
        }
    }

    /// Starts the server and waits until its device is usable.
    /// - Parameter isSupervised: another process stands between, which starts it again when it dies.
    static func start(_ configuration: ServerConfiguration, isSupervised: Bool = false) throws(ServerStartError) -> Ready {
        try launch(configuration, isSupervised: isSupervised).ready()
    }

    /// Starts the server.
    static func launch(_ configuration: ServerConfiguration, isSupervised: Bool = false) throws(ServerStartError) -> Start {
        Detachment.fixEnvironment()
        let log: FileDescriptor
        do { log = try ServerLog.create() } catch { throw .noLog(error) }
        var isStarted = false
        defer { if !isStarted { try? log.close() } }
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw ServerStartError.cannotStart(Errno(rawValue: errno))
        }
        let connection = FileDescriptor(rawValue: ends[0])
        defer { if !isStarted { try? connection.close() } }
        // A server that dies must not take this process along when it is written to.
        signal(SIGPIPE, SIG_IGN)
        let memory = ControlGroupMemory.current
        var process: Int32 = 0
        let result = withArgumentVector(["qed-ublk", isSupervised ? "supervise" : "serve"] + configuration.serveArguments) {
            cs_spawn_self($0, log.rawValue, ends[1], &process)
        }
        close(ends[1])
        guard result == 0 else { throw ServerStartError.cannotStart(Errno(rawValue: -result)) }
        isStarted = true
        return Start(process: process, connection: connection, log: log, deadline: time(nil) + deadlineSeconds, memory: memory)
    }

    /// In the server: tells `add` that the device is usable, and waits for what becomes of that.
    /// - Returns: whether somebody has learned the path.
    static func announce(_ path: String, to add: FileDescriptor) -> Bool {
        defer { try? add.close() }
        guard (try? add.writeAll(Report.ready(path).line.utf8)) != nil else { return false }
        var answer: UInt8 = 0
        return (try? withUnsafeMutableBytes(of: &answer) { try add.read(into: $0) }) == 1
    }

    private enum Answer {
        case text(String)
        case timedOut
    }

    /// Reads a line, or less where the server closes its end before.
    private static func report(
        from descriptor: FileDescriptor, until end: Int
    ) throws(ServerStartError) -> Answer {
        var text: [UInt8] = []
        while true {
            var polled = pollfd(fd: descriptor.rawValue, events: Int16(POLLIN), revents: 0)
            let remaining = end - time(nil)
            guard remaining > 0 else { return .timedOut }
            guard poll(&polled, 1, Int32(remaining * 1000)) > 0 else { continue }
            var bytes = [UInt8](repeating: 0, count: 4096)
            let count: Int
            do { count = try bytes.withUnsafeMutableBytes { try descriptor.read(into: $0) } } catch {
                throw .died("\(error)")
            }
            text += bytes.prefix(count)
            if count == 0 || text.last == UInt8(ascii: "\n") || text.count > 65_536 { break }
        }
        if text.last == UInt8(ascii: "\n") { text.removeLast() }
        return .text(String(decoding: text, as: UTF8.self))
    }
}

/// The server of a device could not be started, or gave up.
public enum ServerStartError: Error, CustomStringConvertible {
    case cannotStart(Errno)
    case noLog(RegistryError)
    /// It has said why, and with which status the program is to end.
    case refused(status: Int32, String)
    case died(String)
    /// By the kernel, and for this.
    case killed(Diagnosis)
    case timedOut(seconds: Int)
    case keepsDying(String)

    public var description: String {
        switch self {
        case .noLog(let error): "\(error)"
        case .cannotStart(let errno): "cannot start the server: \(errno)"
        case .refused(_, let sentence): sentence
        case .died(let words):
            "the server died while it made the device\(words.isEmpty ? "" : ": \(words)"); try --foreground to see more"
        case .killed(let cause): "the server was killed while it made the device: \(cause)"
        case .keepsDying(let device):
            "the server of \(device) dies again and again, so it gets no other; the device waits for 'qed-ublk recover'"
        case .timedOut(let seconds):
            "the device was not ready within \(seconds) seconds, so its server was ended; see 'qed-ublk list' and dmesg"
        }
    }
}
