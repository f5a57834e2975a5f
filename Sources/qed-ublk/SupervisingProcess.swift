import ArgumentParser
import CSupport
import DeviceServer
import Glibc
import SystemPackage
import Ublk

/// The process behind `add --supervise`: starts the server, and another one whenever it dies. Not for users: it stands in
/// for `ServeProcess` and has the same descriptors.
enum SupervisingProcess {
    /// A server that dies sooner than this after its start has probably died of what it was asked.
    private static let shortLifeSeconds = 10
    /// So many short lives, and it is left to somebody who reads the log.
    private static let mostShortLives = 5

    /// - Parameter arguments: those of the server.
    static func run(_ arguments: [String]) throws {
        cs_name_process("qed-ublk")
        let signals = Supervision.blockSignals()
        var server: Int32 = 0
        let result = BackgroundServer.withArguments(["qed-ublk", "serve"] + arguments) {
            cs_spawn_self($0, STDERR_FILENO, 3, &server)
        }
        guard result == 0 else { throw ServerStartError.cannotStart(Errno(rawValue: -result)) }
        close(3)
        var shortLives = 0
        while true {
            let start = time(nil)
            let status = Supervision.waitForEnd(of: server, passingOn: signals)
            if status == 0 { return }
            // Without a record it had no device: it has said why, or nobody was to be told.
            guard let waiting = try Supervision.device(of: server) else { throw ExitCode(ExitStatus.failure.rawValue) }
            shortLives = time(nil) - start < shortLifeSeconds ? shortLives + 1 : 0
            guard shortLives < mostShortLives else { throw ServerStartError.keepsDying(waiting.path) }
            let next = try BackgroundServer.start(waiting.configuration())
            try next.keep()
            server = next.process
        }
    }
}

private enum Supervision {
    /// Signals wait from now on until they are asked for. Children get them all the same.
    static func blockSignals() -> sigset_t {
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] { sigaddset(&signals, signal) }
        pthread_sigmask(SIG_BLOCK, &signals, nil)
        return signals
    }

    /// Waits for the end of a child, and passes on to it what it is to do.
    /// - Returns: 0 where it ended well.
    static func waitForEnd(of child: Int32, passingOn signals: sigset_t) -> Int32 {
        var signals = signals
        while true {
            var status: Int32 = 0
            if waitpid(child, &status, WNOHANG) != 0 { return status }
            var signal: Int32 = 0
            guard sigwait(&signals, &signal) == 0, signal != SIGCHLD else { continue }
            kill(child, signal)
        }
    }

    /// The device that a dead server has left.
    static func device(of server: Int32) throws -> WaitingDevice? {
        guard let record = DeviceRegistry().list().first(where: { $0.server.id == server && !$0.server.isRunning })
        else { return nil }
        return try WaitingDevice(record, try UblkControlDevice())
    }
}
