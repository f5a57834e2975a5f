import CSupport
import Glibc
import Platform
import Ublk

/// `doctor`: looks at what devices need of a machine, and at what there is of them, and changes nothing, but that it has the
/// kernel's module loaded, as `add` would.
public enum Doctor {
    /// Everything that was looked at. The kernel may wait for a device that does not answer, some seconds for each.
    public static func findings() -> [Finding] {
        let registry = DeviceRegistry()
        var findings = [kernel(KernelRelease.running)]
        let (driverFinding, features) = driver()
        findings.append(driverFinding)
        if let features { findings += Doctor.features(features) }
        findings.append(rings(disabled: line("/proc/sys/kernel/io_uring_disabled")))
        findings += memory(limitBytes: groupLimitBytes())
        findings.append(lockedMemory(limitBytes: lockLimitBytes()))
        findings.append(directory(registry))
        findings.append(names(isUdevRunning: access("/run/udev/control", F_OK) == 0, hasRule: hasUdevRule))
        findings += devices(registry)
        return findings
    }

    private static func line(_ path: String) -> String? { KernelTree.machine.line(path) }

    // MARK: - The kernel

    static func kernel(_ release: KernelRelease?) -> Finding {
        guard let release else { return Finding("kernel", .warning, "the kernel does not say its version") }
        let name = "Linux \(release.major).\(release.minor).\(release.patch)\(release.suffix)"
        if let defect = release.ublkDefect { return Finding("kernel", .warning, defect, remedy: "boot another kernel") }
        // docs/recovery.md: a server that is killed while it takes over.
        guard release.isAtLeast(6, 16) else {
            return Finding(
                "kernel", .note,
                "\(name): a server that is killed while it takes a device over leaves one that cannot be recovered",
                remedy: "use Linux 6.16 or later where servers are killed again and again")
        }
        return Finding("kernel", .good, name)
    }

    private static func driver() -> (Finding, UblkFeatures?) {
        do throws(UblkControlError) {
            UblkDriver.load()
            let control = try UblkControlDevice()
            guard let features = try control.features() else {
                return (Finding("driver", .note, "the driver cannot be asked what it can do (before Linux 6.5)"), nil)
            }
            return (Finding("driver", .good, "the driver answers: \(features)"), features)
        } catch {
            return (Finding("driver", .trouble, "\(error)"), nil)
        }
    }

    /// What is missing that something needs.
    static func features(_ features: UblkFeatures) -> [Finding] {
        let wanted: [(UblkFeatures, String, String)] = [
            (.ioctlEncoding, "6.4", "no device can be served"),
            (.userRecovery, "6.1", "a device goes with its server: there is no recovery"),
            (.servesPages, "6.16", "data is copied once more for each request: there is no zero copy"),
            (.updateSize, "6.16", "a disk cannot grow while it is used ('resize')"),
            (.quiesce, "6.16", "a server that leaves its device is noticed a moment later"),
            (.safeStop, "7.0", "'del' has the disk exclusively for a moment, instead of asking the kernel who uses it"),
        ]
        return wanted.compactMap { feature, kernel, consequence in
            guard !features.isSuperset(of: feature) else { return nil }
            return Finding(
                "driver", feature == .ioctlEncoding ? .trouble : .note, consequence,
                remedy: "Linux \(kernel) or later can do that")
        }
    }

    // MARK: - The machine

    static func rings(disabled: String?) -> Finding {
        switch disabled {
        case "2":
            Finding(
                "io_uring", .trouble, "this machine lets no program use io_uring",
                remedy: "sysctl kernel.io_uring_disabled=1 allows it to root and one group")
        case "1": Finding("io_uring", .good, "allowed to root and one group")
        default: Finding("io_uring", .good, "allowed")
        }
    }

    /// Of the control group of who asks, and those that it lies in; nil: none.
    private static func groupLimitBytes() -> UInt64? {
        guard let entry = line("/proc/self/cgroup"), entry.hasPrefix("0::/") else { return nil }
        var names = entry.dropFirst(4).split(separator: "/")
        var least: UInt64?
        while !names.isEmpty {
            let path = "/sys/fs/cgroup/\(names.joined(separator: "/"))/memory.max"
            if let limit = line(path).flatMap({ UInt64($0) }) { least = min(least ?? limit, limit) }
            names.removeLast()
        }
        return least
    }

    /// What a server takes at most with the usual options: tables, the buffers of requests, the program.
    private static let usualServerBytes: UInt64 = 96 << 20

    static func memory(limitBytes: UInt64?) -> [Finding] {
        guard let limitBytes, limitBytes < usualServerBytes else {
            return [Finding("memory", .good, limitBytes.map { "the control group may have \($0 >> 20) MiB" } ?? "no limit")]
        }
        return [
            Finding(
                "memory", .warning,
                "the control group may have \(limitBytes >> 20) MiB, and a server with the usual options takes up to "
                    + "\(usualServerBytes >> 20) MiB",
                remedy: "raise MemoryMax, or add with smaller --cache-size, --queues and --depth")
        ]
    }

    /// Of whoever asks; nil: none.
    private static func lockLimitBytes() -> UInt64? {
        var limit = rlimit()
        guard cs_has_unlimited_locks() == 0, getrlimit(__rlimit_resource_t(__RLIMIT_MEMLOCK.rawValue), &limit) == 0,
            limit.rlim_cur != rlim_t.max
        else { return nil }
        return UInt64(limit.rlim_cur)
    }

    static func lockedMemory(limitBytes: UInt64?) -> Finding {
        guard let limitBytes, limitBytes < usualServerBytes else { return Finding("memory", .good, "servers may lock theirs") }
        return Finding(
            "memory", .warning,
            "a server may lock \(limitBytes >> 20) MiB; what it cannot lock may be swapped out, at worst to its own disk, and "
                + "then wait for itself",
            remedy: "ulimit -l unlimited, LimitMEMLOCK=infinity, or CAP_IPC_LOCK")
    }

    // MARK: - Names

    private static var hasUdevRule: Bool {
        ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"].contains {
            access("\($0)/udev/rules.d/59-qed-ublk.rules", F_OK) == 0
        }
    }

    static func names(isUdevRunning: Bool, hasRule: Bool) -> Finding {
        guard isUdevRunning else { return Finding("names", .good, "no udev runs here: disks have /dev/qed/NAME alone") }
        guard !hasRule else { return Finding("names", .good, "udev makes links of disks") }
        return Finding(
            "names", .note,
            "udev has no rule for disks of qed-ublk: there is no /dev/disk/by-id/qed-*, and fstab finds no /dev/qed/NAME",
            remedy: "install the package, or 59-qed-ublk.rules in /etc/udev/rules.d")
    }

    // MARK: - The directory

    static func directory(_ registry: DeviceRegistry) -> Finding {
        do throws(RegistryError) { try registry.checkOwner() } catch { return Finding("directory", .trouble, "\(error)") }
        let descriptor = open(registry.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard descriptor >= 0 else {
            return Finding("directory", .good, "\(registry.directory) is made with the first device")
        }
        defer { close(descriptor) }
        guard cs_is_in_memory(descriptor) == 1 else {
            return Finding("directory", .warning, SessionFile.isOnDisk(registry.directory))
        }
        return Finding("directory", .good, "\(registry.directory) is in memory")
    }

    // MARK: - Devices

    private static func devices(_ registry: DeviceRegistry) -> [Finding] {
        let known: [KnownDevice]
        do { known = try KnownDevices.all(registry: registry) } catch { return [Finding("devices", .warning, "\(error)")] }
        let findings = known.compactMap {
            device($0.path, id: $0.id, state: $0.state, use: DiskUse.found(ofDiskAt: $0.path)?.description)
        }
        guard findings.isEmpty else { return findings }
        return [Finding("devices", .good, known.isEmpty ? "there is none" : "\(known.count), and none that needs anybody")]
    }

    /// - Parameter use: who uses it; nil: nobody, as far as can be seen. All processes are looked at for it, so it is asked only
    ///   of a device that wants attention.
    static func device(_ path: String, id: UInt32, state: String, use: @autoclosure () -> String?) -> Finding? {
        var users: String { use().map { "; \($0)" } ?? "" }
        return switch state {
        case "waiting":
            Finding(
                "devices", .warning, "\(path) has lost its server, and whoever uses it waits\(users)",
                remedy: "qed-ublk recover \(id)")
        case "dead":
            Finding(
                "devices", .warning, "\(path) has lost its server, and cannot get another one\(users)",
                remedy: "qed-ublk del \(id)")
        case "failed":
            Finding(
                "devices", .warning, "\(path) only reads, since a sync of its image has failed\(users)",
                remedy: "see the server's log in the runtime directory, and docs/recovery.md")
        case "orphan":
            Finding(
                "devices", .warning, "\(path) has no server, and nobody knows its image\(users)",
                remedy: "if it is no other program's: qed-ublk del \(id)")
        default: nil
        }
    }
}
