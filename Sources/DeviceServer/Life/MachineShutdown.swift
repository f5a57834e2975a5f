import BlockStorage
import CSupport
import Glibc
import Platform

/// Whether the machine is going down, as its service manager says.
///
/// SIGTERM means two things. To a server in a running system it means to end, and a disk in use is left to the next server.
/// While the machine goes down there is no next one: whoever unmounts the disk then would wait for ever, and what it had not
/// written yet would be lost. Nobody tells a process which of the two is meant, so it asks.
enum MachineShutdown {
    /// Waits for the answer, a few seconds at most. False where there is no systemd, or it does not say.
    static var isUnderWay: Bool {
        // The last stage: process 1 has become the program that kills what is left and unmounts what is mounted. A name has
        // 15 bytes there.
        if ProcessFiles.name(ofProcess: 1) == "systemd-shutdow" { return true }
        // As sd_booted(3) asks.
        guard access("/run/systemd/system", F_OK) == 0 else { return false }
        return isStopping(answer(of: ["systemctl", "is-system-running"]))
    }

    /// - Parameter answer: of `systemctl is-system-running`, a word in a line.
    static func isStopping(_ answer: String) -> Bool { answer == "stopping\n" }

    /// From now on the last stage of the machine's going down neither kills this process nor waits for its end: it ends by
    /// itself when its disk is not used any more.
    static func stayToTheEnd() { cs_mark_as_storage_daemon() }

    private static let answerLimitSeconds = 10

    /// What a program prints, within the time; empty where it cannot be started.
    private static func answer(of words: [String]) -> String {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else { return "" }
        defer { close(ends[0]) }
        var process: Int32 = 0
        let arguments: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) } + [nil]
        defer { for argument in arguments { free(argument) } }
        let result = arguments.withUnsafeBufferPointer {
            cs_spawn_program($0.baseAddress.unsafelyUnwrapped, ends[1], -1, &process)
        }
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
