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
        return isStopping(ProgramAnswer.of(["systemctl", "is-system-running"]))
    }

    /// - Parameter answer: of `systemctl is-system-running`, a word in a line.
    static func isStopping(_ answer: String) -> Bool { answer == "stopping\n" }

    /// From now on the last stage of the machine's going down neither kills this process nor waits for its end: it ends by
    /// itself when its disk is not used any more.
    static func stayToTheEnd() { cs_mark_as_storage_daemon() }
}
