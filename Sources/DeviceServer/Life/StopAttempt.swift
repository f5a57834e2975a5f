import CSupport
import Glibc
import IOURing
import Platform

/// An attempt to take a device's disk away, on a thread of its own: it may wait for requests that are in flight, and the
/// server answers others meanwhile.
final class StopAttempt: @unchecked Sendable {
    enum Outcome {
        case stopped
        case used(DiskUse)
        /// The driver has refused it, or has not answered in time.
        case failed(ServerError)
    }

    // SAFETY: `outcome` is locked; the rest is set before the thread starts.
    /// Signalled when there is an outcome.
    let finished: Int32
    /// Who asked for it; nil: a signal.
    let request: ControlSocketServer.ConnectionID?
    /// It has asked for a disk in use to go when that has ended.
    let isLazy: Bool
    /// It is that of a signal.
    let asksMachine: Bool
    let startedAt: Int
    private let outcomeLock = Lock<Outcome?>(nil)
    private let goesDown = Lock(false)
    private var thread: BackgroundThread?

    /// After `finished` was signalled: the disk is in use, and the machine is going down.
    var machineGoesDown: Bool { goesDown.withLock { $0 } }

    /// Nil where there is no thread or descriptor for it.
    /// - Parameters:
    ///   - isLazy: whoever asked for it wants a disk in use to go when that has ended.
    ///   - asksMachine: where it is a signal that asks, and the disk is in use: whether the machine is going down.
    ///   - stop: takes the disk away, or tells who uses it.
    init?(
        request: ControlSocketServer.ConnectionID?, isLazy: Bool = false, asksMachine: (() -> Bool)? = nil,
        _ stop: @escaping () throws(ServerError) -> DiskUse?
    ) {
        self.request = request
        self.isLazy = isLazy
        self.asksMachine = asksMachine != nil
        startedAt = Uptime.seconds
        finished = cs_eventfd()
        guard finished >= 0 else { return nil }
        do {
            thread = try BackgroundThread { [self] in
                let outcome: Outcome
                do throws(ServerError) {
                    outcome = try stop().map { .used($0) } ?? .stopped
                } catch {
                    outcome = .failed(error)
                }
                if case .used = outcome, asksMachine?() == true { goesDown.withLock { $0 = true } }
                outcomeLock.withLock { $0 = outcome }
                cs_eventfd_signal(finished)
            }
        } catch {
            cs_close(finished)
            return nil
        }
    }

    /// After `finished` was signalled; once.
    func takeOutcome() -> Outcome? {
        thread?.join()
        cs_close(finished)
        return outcomeLock.withLock { $0 }
    }

    /// For whoever else wants it stopped.
    var description: String { "is being removed, for \(Uptime.seconds - startedAt) seconds by now; wait for that" }
}

/// A clock that does not go back.
enum Uptime {
    static var seconds: Int { Int(milliseconds / 1000) }

    static var milliseconds: Int64 { Int64(cs_monotonic_nanoseconds() / 1_000_000) }
}
