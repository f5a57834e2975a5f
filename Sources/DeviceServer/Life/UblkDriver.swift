import Glibc
import Ublk

/// The kernel's driver, where it is a module that nobody has asked for yet.
enum UblkDriver {
    /// Has it loaded, as losetup has its own: by the program that the kernel itself would use. Where that does not help, whoever
    /// opens the driver says so.
    static func load() {
        guard access(UblkPaths.control, F_OK) != 0, errno == ENOENT, geteuid() == 0 else { return }
        let program = KernelTree.machine.line("/proc/sys/kernel/modprobe") ?? "/sbin/modprobe"
        // An empty one forbids it.
        if !program.isEmpty { _ = ProgramAnswer.of([program, "-q", "ublk_drv"]) }
    }
}
