import CSupport
import Logging
import SystemPackage

/// This process, made fit to be a server: what it must be before it opens a file of an image or has a second thread.
public struct ServerProcess: Sendable {
    /// A signalfd.
    let signals: Int32
    /// It is in a mount namespace of its own.
    let hasOwnMounts: Bool

    /// Changes the calling thread, and those it makes from now on. Files that are open by now stay those of the mounts that
    /// they were opened through.
    public init(log: Logger) throws(ServerError) {
        signals = cs_block_signals()
        guard signals >= 0 else { throw .ring(Errno(rawValue: -signals)) }
        ReclaimSafety.apply(log: log)
        hasOwnMounts = PrivateMounts.enter(log: log)
    }
}
