import CSupport
import Glibc
import IOURing
import Platform
import SystemPackage
import Ublk

/// `doctor`: looks at what devices need of a machine, and at what there is of them, and changes nothing, but that it has the
/// kernel's module loaded, as `add` would.
public enum Doctor {
    /// Everything that was looked at. The kernel may wait for a device that does not answer, some seconds for each.
    public static func findings() -> [Finding] {
        let registry = DeviceRegistry()
        let release = KernelRelease.running
        var findings = kernel(release)
        let (driverFindings, features) = driver(release)
        findings += driverFindings
        findings.append(rings(refusal: RingRefusal.current, policy: RingRefusal.policy))
        findings.append(memory(.current))
        findings.append(lockedMemory(limitBytes: ReclaimSafety.lockLimitBytes))
        findings.append(directory(registry))
        findings.append(names(isUdevRunning: access("/run/udev/control", F_OK) == 0, hasRule: hasUdevRule))
        findings += devices(registry, driver: features)
        return findings
    }

    // MARK: - The kernel

    static func kernel(_ release: KernelRelease?) -> [Finding] {
        guard let release else { return [Finding("kernel", .warning, "the kernel does not say its version")] }
        let findings = release.defects.compactMap { defect in
            release.diagnosis(of: defect).map { Finding("kernel", verdict(on: defect), $0) }
        }
        return findings.isEmpty ? [Finding("kernel", .good, "\(release)")] : findings
    }

    private static func verdict(on defect: KernelDefect) -> Finding.Verdict {
        switch defect {
        case .addHangs, .startHangs: .warning
        case .startMayHang, .takeoverIsCutShort: .note
        }
    }

    /// - Returns: what the driver can do as well, where it says so.
    private static func driver(_ release: KernelRelease?) -> ([Finding], UblkFeatures?) {
        do throws(UblkControlError) {
            UblkDriver.load()
            guard let features = try UblkControlDevice().features() else {
                // It has been asked since 6.5, and can serve since 6.4.
                guard release?.isAtLeast(6, 4) == true else { return ([Finding("driver", .trouble, KernelRelease.tooOld)], nil) }
                return ([Finding("driver", .note, "the driver cannot be asked what it can do (before Linux 6.5)")], nil)
            }
            return (abilities(features), features)
        } catch .ringUnavailable(let errno) where errno != .invalidArgument {
            // Which is a finding of its own.
            return ([Finding("driver", .note, "the driver can be asked through an io_uring alone")], nil)
        } catch {
            return ([Finding("driver", .trouble, error.diagnosis ?? Diagnosis("\(error)"))], nil)
        }
    }

    /// What there is, and what is missing that something needs.
    static func abilities(_ features: UblkFeatures) -> [Finding] {
        guard features.contains(.ioctlEncoding) else { return [Finding("driver", .trouble, KernelRelease.tooOld)] }
        return [Finding("driver", .good, "the driver answers: \(features)")]
            + DriverAbility.all.filter { !features.isSuperset(of: $0.features) }.map { Finding("driver", .note, $0.diagnosis) }
    }

    // MARK: - The machine

    static func rings(refusal: Diagnosis?, policy: String?) -> Finding {
        if let refusal { return Finding("io_uring", .trouble, refusal) }
        return Finding("io_uring", .good, policy == "1" ? "allowed to root and one group" : "allowed")
    }

    static func memory(_ group: ControlGroupMemory) -> Finding {
        if let shortage = group.shortage { return Finding("memory", .warning, shortage) }
        return Finding(
            "memory", .good, group.limitBytes.map { "the control group may have \($0 >> 20) MiB" } ?? "no limit")
    }

    /// - Parameter limitBytes: nil: none.
    static func lockedMemory(limitBytes: UInt64?) -> Finding {
        guard let limitBytes else { return Finding("memory", .good, "servers may lock theirs") }
        return Finding("memory", .warning, ReclaimSafety.lockLimit(limitBytes))
    }

    static func directory(_ registry: DeviceRegistry) -> Finding {
        do throws(RegistryError) { try registry.checkOwner() } catch {
            return Finding("directory", .trouble, error.diagnosis)
        }
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
            Diagnosis(
                "udev has no rule for disks of qed-ublk: there is no /dev/disk/by-id/qed-*, and fstab finds no /dev/qed/NAME",
                remedy: "install the package, or 59-qed-ublk.rules in /etc/udev/rules.d"))
    }
}
