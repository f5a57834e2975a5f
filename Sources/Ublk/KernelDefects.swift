import Platform

/// What is known to be wrong with the ublk drivers of some kernels, and matters to whoever serves devices.
public enum KernelDefect: CaseIterable, Sendable {
    /// A change in 6.18.4, carried into some of Ubuntu's 6.17 kernels, makes ADD_DEV hang or oops; 6.18.6 has the correction.
    case addHangs
    /// Of loops that made, started, stopped and removed a device it is reported that a START_DEV never ended, after 12 to 248
    /// times; every later control command hung as well. These kernels were seen to do it.
    case startHangs
    /// As `startHangs`, of another kernel of the same series: others of them were tried and did not.
    case startMayHang
    /// docs/recovery.md: a server that is killed while it takes over. 6.16 has the correction.
    case takeoverIsCutShort
}

extension KernelRelease {
    /// What is wrong with this kernel, in the order in which it matters.
    public var defects: [KernelDefect] { KernelDefect.allCases.filter(has) }

    /// nil where this kernel does not have the defect.
    public func diagnosis(of defect: KernelDefect) -> Diagnosis? {
        guard has(defect) else { return nil }
        let inLoops = "after a dozen to some hundred devices that were made and removed one after the other"
        let reboot = "use another kernel where devices come and go all the time; where it has happened only a reboot helps"
        return switch defect {
        case .addHangs:
            Diagnosis(
                "\(self) is known to hang or crash when a ublk device is added",
                remedy: "use another kernel (6.18.6 or later of its series) and reboot")
        case .startHangs:
            Diagnosis("\(self) is reported to hang for good in START_DEV, \(inLoops)", remedy: reboot)
        case .startMayHang:
            Diagnosis(
                "some kernels of Linux 6.18 and 7.0 (6.18.40, Ubuntu's 7.0.0-28) are reported to hang for good in START_DEV, "
                    + "\(inLoops); of \(self) nothing is known", remedy: reboot)
        case .takeoverIsCutShort:
            Diagnosis(
                "\(self): a server that is killed while it takes a device over leaves one that cannot be recovered",
                remedy: "use Linux 6.16 or later where servers are killed again and again")
        }
    }

    private func has(_ defect: KernelDefect) -> Bool {
        switch (defect, major, minor, patch) {
        case (.addHangs, 6, 18, 4), (.addHangs, 6, 18, 5): true
        case (.addHangs, 6, 17, 0): suffix.hasSuffix("-aws") || suffix == "-1015-azure" || suffix == "-1018-azure"
        case (.startHangs, 6, 18, 40): true
        case (.startHangs, 7, 0, 0): suffix == "-28-generic"
        case (.startMayHang, 6, 18, _), (.startMayHang, 7, 0, _): !has(.startHangs)
        case (.takeoverIsCutShort, _, _, _): !isAtLeast(6, 16)
        default: false
        }
    }
}
