import CSupport
import Glibc
import Platform
import SystemPackage

/// What keeps a server from waiting for its own disk: the kernel frees memory by writing dirty pages to disks, and by
/// swapping. A server that had to wait for memory, or whose own memory was swapped out, to its own disk perhaps, would
/// wait for itself.
enum ReclaimSafety {
    /// For the process, before it has other threads: they inherit it.
    /// - Returns: what is not permitted, in sentences.
    static func apply() -> [String] {
        var warnings: [String] = []
        let flusher = cs_become_io_flusher()
        if flusher != 0 {
            let reason = "\(Errno(rawValue: -flusher)) (PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE)"
            warnings.append("the server's allocations may wait for its own disk when memory is short: \(reason)")
        }
        // Once used, and never before: the cache of tables and the stacks are mostly reserve.
        let lock = cs_lock_used_memory()
        if lock != 0 {
            let refusal = lockLimitBytes.map { "\(lockLimit($0))" }
            warnings.append(refusal ?? "the server's memory may be swapped out: \(Errno(rawValue: -lock))")
            return warnings
        }
        // Code that has not run yet lies in a file, which may lie in memory that is swapped out (a tmpfs), or on a disk that is
        // slow now. A server that reads it when it is first needed may wait for its own disk.
        let program = cs_read_program()
        if program != 0 {
            warnings.append("the server's program may have to be read while memory is short: \(Errno(rawValue: -program))")
        }
        return warnings
    }

    /// How much this process may lock; nil: all of it.
    static var lockLimitBytes: UInt64? {
        var limit = rlimit()
        guard cs_has_unlimited_locks() == 0, getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0 else {
            return nil
        }
        return UInt64(limit.rlim_cur)
    }

    /// What a limit means, whatever it is: memory that a server comes to use later could not be locked, so only the I/O buffers
    /// are, as far as it goes.
    static func lockLimit(_ bytes: UInt64) -> Diagnosis {
        Diagnosis(
            "a server may lock \(bytes >> 10) KiB, and what it cannot lock may be swapped out, at worst to its own disk, and "
                + "then wait for itself", remedy: lockRemedy)
    }

    static let lockRemedy = "ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_IPC_LOCK"
}
