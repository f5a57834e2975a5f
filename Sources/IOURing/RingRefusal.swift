import Platform
import SystemPackage

/// Whether a program may have an io_uring, and what is said where it may not.
public enum RingRefusal {
    /// The machine's policy, kernel.io_uring_disabled (Linux 6.6): "0" all may, "1" root and one group, "2" nobody; nil where
    /// the kernel has none.
    public static var policy: String? {
        readSmallFile("/proc/sys/kernel/io_uring_disabled", limitBytes: 16).map {
            String(decoding: $0.prefix { $0 != 0x0a }, as: UTF8.self)
        }
    }

    /// Why this program gets none now; nil: it does.
    public static var current: Diagnosis? {
        do throws(Errno) {
            try Ring.create(entries: 4, completionEntries: 8, setup: .queue).close()
            return nil
        } catch { return diagnosis(error) }
    }

    /// - Parameter errno: of `Ring.create`.
    public static func diagnosis(_ errno: Errno, policy: String? = policy) -> Diagnosis {
        switch (errno, policy) {
        case (.noFunction, _):
            Diagnosis("this kernel has no io_uring", remedy: "boot one that was built with CONFIG_IO_URING")
        case (.notPermitted, "2"), (.permissionDenied, "2"):
            Diagnosis(
                "this machine lets no program use io_uring",
                remedy: "'sysctl kernel.io_uring_disabled=1' allows it to root and one group")
        case (.notPermitted, "1"), (.permissionDenied, "1"):
            Diagnosis(
                "this machine lets root and one group alone use io_uring",
                remedy: "run this as root, or as one of the group that 'sysctl kernel.io_uring_group' names")
        case (.notPermitted, _), (.permissionDenied, _):
            Diagnosis(
                "a filter of system calls forbids io_uring to this program",
                remedy: "allow io_uring_setup, io_uring_enter and io_uring_register in the container's, or the unit's, filter")
        case (.noMemory, _):
            Diagnosis("there is no memory for an io_uring", remedy: "raise the limit of locked memory (ulimit -l), or free some")
        case (.tooManyOpenFiles, _):
            Diagnosis("there is no descriptor left for an io_uring", remedy: "raise the limit of open files (ulimit -n)")
        default: Diagnosis("an io_uring cannot be set up: \(errno)")
        }
    }
}
