import CSupport
import Glibc

/// What another program prints, which has a bounded time for it.
enum ProgramAnswer {
    private static let answerLimitSeconds = 10

    /// - Returns: what it has printed when it ends, or after the time; empty where it cannot be started.
    static func of(_ words: [String]) -> String {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else { return "" }
        defer { close(ends[0]) }
        var process: Int32 = 0
        let result = withArgumentVector(words) { cs_spawn_program($0, ends[1], -1, &process) }
        close(ends[1])
        guard result == 0 else { return "" }
        let deadline = Uptime.milliseconds + Int64(answerLimitSeconds * 1000)
        var text: [UInt8] = []
        while text.count < 4096 {
            var polled = pollfd(fd: ends[0], events: Int16(POLLIN), revents: 0)
            guard poll(&polled, 1, Int32(clamping: max(deadline - Uptime.milliseconds, 0))) > 0 else { break }
            var piece = [UInt8](repeating: 0, count: 256)
            let count = read(ends[0], &piece, piece.count)
            guard count > 0 else { break }
            text += piece.prefix(count)
        }
        kill(process, SIGKILL)
        // It may wait for a disk. Then it is reaped when this process ends.
        for _ in 0..<100 where waitpid(process, nil, WNOHANG) == 0 { usleep(10_000) }
        return String(decoding: text, as: UTF8.self)
    }
}
