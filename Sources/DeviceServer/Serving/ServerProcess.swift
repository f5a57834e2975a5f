import CSupport
import SystemPackage

/// This process, made fit to be a server: what it must be before it opens a file of an image or has a second thread.
struct ServerProcess: Sendable {
    /// A signalfd.
    let signals: Int32
    /// It is in a mount namespace of its own.
    let hasOwnMounts: Bool
    /// What it lacks, in sentences for the log: of a server that serves, not of one that had no image to serve.
    let warnings: [String]

    /// Changes the calling thread, and those it makes from now on. Files that are open by now stay those of the mounts that
    /// they were opened through.
    ///
    /// Relative paths name other files afterwards: it is in the root directory.
    init() throws(ServerError) {
        Detachment.leaveCaller()
        signals = cs_open_signals()
        guard signals >= 0 else { throw .ring(Errno(rawValue: -signals)) }
        var warnings = ReclaimSafety.apply()
        var hasOwnMounts = false
        do {
            hasOwnMounts = try PrivateMounts.enter()
        } catch {
            warnings.append("the server has no mount namespace of its own: \(error)")
        }
        self.hasOwnMounts = hasOwnMounts
        self.warnings = warnings
    }

    /// From now on signals are requests to the server. Until the image is open they end the process, as they should: nothing
    /// has been made yet, and opening can take long. Before there is a second thread.
    func takeSignals() throws(ServerError) {
        let result = cs_block_signals()
        guard result == 0 else { throw .ring(Errno(rawValue: -result)) }
    }
}
