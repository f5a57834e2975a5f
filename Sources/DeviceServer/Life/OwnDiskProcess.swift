import CSupport
import Glibc
import Platform
import SystemPackage

/// A process for whatever waits until the server's own disk has been read or written.
///
/// In the server itself it would be a thread that waits in the kernel, where SIGKILL does not reach it: a server that is killed
/// meanwhile (by the OOM killer, a crash, a person) would not end, and keep its image from the next one, which alone could
/// have ended the wait. This process has nothing of the server's open. It goes on with the next server, or ends with the disk.
public struct OwnDiskProcess {
    enum Work: String {
        /// Write what is dirty in the page caches of the disk and its partitions.
        case flush
        /// The same, and forget what is in them.
        case forget
        /// Write that, and what its users beyond these have not written yet: see `WriteBack`.
        case writeBack = "write-back"
        /// Open the disk, once the kernel has read its partition table: see `DiskNodes`.
        case open
        /// The same, and have the kernel read it; or where nobody reads it.
        case openAndScan = "open-and-scan"
        case openAlone = "open-alone"
        /// Open it exclusively, and hand that over: see `DiskHold`.
        case hold
        /// See `DiskExchange`; the disk is in use, perhaps.
        case exchange
        case exchangeInUse = "exchange-in-use"

        static func open(_ reader: DiskNodes.TableReader) -> Work {
            switch reader {
            case .kernel: .open
            case .server: .openAndScan
            case .nobody: .openAlone
            }
        }
    }

    let process: Int32
    /// Ends when the process does.
    private let report: Int32

    init(_ work: Work, ofDiskAt path: String) throws(Errno) { try self.init(OwnDiskProcess.words + [work.rawValue, path]) }

    static let name = "qed-ublk"
    private static let words = [name, "own-disk"]

    /// Whether a process is one of these, of whichever server.
    static func isOne(_ process: Int32) -> Bool {
        readSmallFile("/proc/\(process)/cmdline", limitBytes: 65_536)?.starts(with: words.joined(separator: "\0").utf8) == true
    }

    /// - Parameter arguments: of this program.
    init(_ arguments: [String]) throws(Errno) {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw Errno(rawValue: errno)
        }
        var process: Int32 = 0
        let result = withArgumentVector(arguments) { cs_spawn_self($0, ends[1], ends[1], &process) }
        close(ends[1])
        guard result == 0 else {
            close(ends[0])
            throw Errno(rawValue: -result)
        }
        self.process = process
        report = ends[0]
    }

    /// Waits for its end, once. It waits for the disk, perhaps for ever; the server can be killed meanwhile.
    /// - Returns: what it has said, in lines. Nil when it has not ended in time: it is killed, and ends when the disk lets it.
    func wait(timeout: Duration? = nil) -> [String]? {
        guard let text = OwnDiskProcess.readToEnd(report, until: timeout.map { ContinuousClock.now + $0 }) else {
            giveUp()
            return nil
        }
        close(report)
        let status = waitForEnd()
        let lines = text.split(separator: "\n").map(String.init)
        return status == 0 ? lines : lines + ["the process for that ended with status \(status)"]
    }

    /// Whether it has said something, or has ended.
    func hasReported(within time: Duration) -> Bool { OwnDiskProcess.isReadable(report, until: ContinuousClock.now + time) }

    /// What it says next: a line, without its end. Waits for it; nil where it has ended without one.
    func nextLine() -> String? { readLine(from: report, limitBytes: 4096) }

    /// Tells it to go on, and waits for its end, once: when that has not come in time it is left to itself.
    func finish(within time: Duration) {
        shutdown(report, Int32(SHUT_WR))
        let hasEnded = OwnDiskProcess.readToEnd(report, until: ContinuousClock.now + time) != nil
        close(report)
        if hasEnded { waitForEnd() }
    }

    /// The file that it hands over, once.
    /// - Throws: why it could not open it.
    func openFile() throws(Errno) -> Int32 {
        var descriptor: Int32 = -1
        let error = cs_receive_open_file(report, &descriptor)
        close(report)
        // Until it has ended it has the file open, too.
        waitForEnd()
        guard error == 0 else { throw Errno(rawValue: abs(error)) }
        return descriptor
    }

    /// Instead of waiting for it: it is killed, and ends when the disk lets it.
    func giveUp() {
        close(report)
        kill(process, SIGKILL)
    }

    @discardableResult
    private func waitForEnd() -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        return status
    }

    /// Has something written, however long it takes.
    /// - Returns: what could not be written, in sentences.
    static func write(_ work: Work, ofDiskAt path: String) -> [String] {
        precondition(work == .flush || work == .forget || work == .writeBack, "what is written")
        do throws(Errno) {
            return try OwnDiskProcess(work, ofDiskAt: path).wait() ?? []
        } catch {
            return ["\(path) cannot be written back: \(error)"]
        }
    }

    /// The process. Not for users: its standard error, and descriptor 3, are the server's.
    /// - Parameter words: the work, and the disk's path.
    public static func main(_ words: [String]) {
        guard words.count == 2, let work = Work(rawValue: words[0]) else { return }
        // Like that of a server it may have to wait when others of its service are ended.
        Detachment.leaveControlGroup()
        // It was started as /proc/self/exe, and would be called exe.
        cs_name_thread(name)
        let path = words[1]
        let report = { (sentence: String) in
            _ = try? FileDescriptor(rawValue: 3).writeAll("\(sentence.filter { !$0.isNewline })\n".utf8)
        }
        switch work {
        case .flush: WriteBack.flushDisk(at: path, report: report)
        case .forget: WriteBack.flushDisk(at: path, forgets: true, report: report)
        case .writeBack: WriteBack.run(ofDiskAt: path, report: report)
        case .open: report("\(DiskNodes(ofDiskAt: path, tableReader: .kernel).openDisk())")
        case .openAndScan: report("\(DiskNodes(ofDiskAt: path, tableReader: .server).openDisk())")
        case .openAlone: report("\(DiskNodes(ofDiskAt: path, tableReader: .nobody).openDisk())")
        case .hold: DiskHold.handOver(diskAt: path, to: 3)
        case .exchange, .exchangeInUse: DiskExchange.run(ofDiskAt: path, isExclusive: work == .exchange, 3)
        }
    }

    /// As much as there is of an end; more than anybody would read is left out.
    /// - Returns: nil when there is no end in time.
    static func readToEnd(_ descriptor: Int32, until end: ContinuousClock.Instant?) -> String? {
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            if let end, !isReadable(descriptor, until: end) { return nil }
            let count = read(descriptor, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return String(decoding: text, as: UTF8.self) }
            if text.count < 65_536 { text += piece.prefix(count) }
        }
    }

    private static func isReadable(_ descriptor: Int32, until end: ContinuousClock.Instant) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let left = max(ContinuousClock.now.duration(to: end), .zero)
            let count = poll(&polled, 1, Int32(clamping: Int(left / .milliseconds(1))))
            if count < 0 && errno == EINTR { continue }
            return count > 0
        }
    }
}
