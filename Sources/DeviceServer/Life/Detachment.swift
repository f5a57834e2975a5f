import CSupport
import Glibc

/// How a server, and whoever supervises one, lets go of what it was started with. It outlives its caller: a file system that
/// it was started in could not be unmounted; and where that is the one on its own disk, its end would wait for the disk, and
/// so for itself.
enum Detachment {
    /// Makes what the environment names relatively absolute. Before the working directory changes, here or in a child.
    static func fixEnvironment() {
        guard let chosen = getenv("QED_UBLK_RUNTIME_DIR"), chosen.pointee != 0, chosen.pointee != CChar(UInt8(ascii: "/"))
        else { return }
        setenv("QED_UBLK_RUNTIME_DIR", DeviceRegistry.standardDirectory, 1)
    }

    /// Closes what a process in the foreground was given beside its standard descriptors. Before anything is opened.
    static func closeGivenDescriptors() { cs_close_further_descriptors() }

    /// Leaves the working directory, and refuses core dumps: while the kernel writes one the dying server still counts as
    /// one, and what it writes can go to the server's own disk, or through a program that waits for that.
    static func leaveCaller() {
        fixEnvironment()
        _ = chdir("/")
        cs_refuse_core_dumps()
    }

    /// Leaves the caller's control group, for the root of them, where systemd is the service manager. It ends a session, or a
    /// service, with all processes of its group, before it unmounts what is mounted: a disk would lose its server when it needs
    /// it most. Outside of all groups a process is ended when everything has been unmounted.
    /// - Returns: whether it did; there is nothing to leave where systemd is not.
    @discardableResult static func leaveControlGroup() -> Bool {
        guard access("/run/systemd/system", F_OK) == 0 else { return false }
        // Of the only hierarchy, or the one among several that systemd goes by.
        for directory in ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"] {
            let descriptor = open("\(directory)/cgroup.procs", O_WRONLY | O_CLOEXEC)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            // Whoever writes it.
            if write(descriptor, "0\n", 2) == 2 { return true }
        }
        return false
    }
}
