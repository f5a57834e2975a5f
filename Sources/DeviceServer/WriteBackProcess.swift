import CSupport
import Glibc
import SystemPackage

/// A process for whatever waits until the server's own disk has been written to.
///
/// In the server itself it would be a thread that waits in the kernel, where SIGKILL does not reach it: a server that is killed
/// meanwhile (by the OOM killer, a crash, a person) would not end, and keep its image from the next one, which alone could
/// have ended the wait. This process has nothing of the server's open. It goes on with the next server.
public enum WriteBackProcess {
    enum Work: String {
        /// What is dirty in the page caches of the disk and its partitions.
        case flush
        /// That, and what its users beyond these have not written yet: see `WriteBack`.
        case everything
    }

    /// Has it done. Waits for the disk, perhaps for ever; can be killed meanwhile.
    /// - Returns: what could not be written, in sentences.
    static func run(_ work: Work, ofDiskAt path: String) -> [String] {
        func failure(_ reason: String) -> [String] { ["\(path) cannot be written back: \(reason)"] }
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            return failure("\(Errno(rawValue: errno))")
        }
        defer { close(ends[0]) }
        var process: Int32 = 0
        let result = withArgumentVector(["qed-ublk", "write-back", work.rawValue, path]) {
            cs_spawn_self($0, ends[1], ends[1], &process)
        }
        close(ends[1])
        guard result == 0 else { return failure("\(Errno(rawValue: -result))") }
        let text = readToEnd(ends[0])
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 && errno == EINTR {}
        var sentences = text.split(separator: "\n").map(String.init)
        if status != 0 { sentences += failure("the process for that ended with status \(status)") }
        return sentences
    }

    /// The process. Not for users: its standard error, and descriptor 3, are the server's.
    /// - Parameter words: the work, and the disk's path.
    public static func main(_ words: [String]) {
        guard words.count == 2, let work = Work(rawValue: words[0]) else { return }
        // Like that of a server it may have to wait when others of its service are ended.
        Detachment.leaveControlGroup()
        // It was started as /proc/self/exe, and would be called exe.
        cs_name_process("qed-ublk")
        let report = { (sentence: String) in
            _ = try? FileDescriptor(rawValue: 3).writeAll("\(sentence.filter { !$0.isNewline })\n".utf8)
        }
        switch work {
        case .flush: WriteBack.flushDisk(at: words[1], report: report)
        case .everything: WriteBack.run(ofDiskAt: words[1], report: report)
        }
    }

    /// As much as there is of an end; more than anybody would read is left out.
    private static func readToEnd(_ descriptor: Int32) -> String {
        var text: [UInt8] = []
        var piece = [UInt8](repeating: 0, count: 4096)
        while true {
            let count = read(descriptor, &piece, piece.count)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return String(decoding: text, as: UTF8.self) }
            if text.count < 65_536 { text += piece.prefix(count) }
        }
    }
}

/// Lends the body arguments for a program, as execve(2) wants them.
public func withArgumentVector<Result>(
    _ arguments: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Result
) -> Result {
    // SAFETY: the copies live until the body has returned.
    let copies: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for copy in copies { free(copy) } }
    return copies.withUnsafeBufferPointer { body($0.baseAddress.unsafelyUnwrapped) }
}
