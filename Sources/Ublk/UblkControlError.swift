import IOURing
import Platform
import SystemPackage

/// Why a control command did not do its work. `description` is one sentence with what can be done about it.
public enum UblkControlError: Error, Equatable, Sendable {
    /// /dev/ublk-control does not exist.
    case noDriver
    /// /dev/ublk-control exists and may not be opened.
    case notPermitted(path: String)
    case cannotOpen(path: String, Errno)
    /// io_uring is missing, forbidden, or lacks 128-byte submissions (before 5.19).
    case ringUnavailable(Errno)
    /// Refused before the kernel saw it.
    case invalidParameters(UblkParameterViolation)
    /// Refused before the kernel saw it: a number out of the driver's range.
    case outOfRange(UblkCommand, what: String, value: Int, allowed: ClosedRange<Int>)
    /// Refused before the kernel saw it: the device was added without this feature.
    case featureMissing(UblkCommand, deviceID: UInt32, UblkFeatures)
    /// Refused before the kernel saw it: not possible in this state.
    case wrongState(UblkCommand, deviceID: UInt32, UblkDeviceState)
    /// The driver's answer.
    case refused(UblkCommand, deviceID: UInt32?, Errno)
    /// The driver did not answer in time. The command may still take effect.
    case timedOut(UblkCommand, deviceID: UInt32?, after: Duration, hint: String)

    /// The driver's errno, where it answered with one.
    public var errno: Errno? {
        switch self {
        case .refused(_, _, let errno), .cannotOpen(_, let errno), .ringUnavailable(let errno): errno
        default: nil
        }
    }
}

extension UblkControlError {
    /// What the machine lacks, for which no command can be sent at all; nil where one was.
    public var diagnosis: Diagnosis? {
        switch self {
        case .noDriver:
            Diagnosis(
                "this kernel has no ublk",
                remedy: "run 'modprobe ublk_drv'; it needs CONFIG_BLK_DEV_UBLK and \(KernelRelease.oldest) or later")
        case .notPermitted(let path):
            Diagnosis("cannot open \(path): ublk devices need root (CAP_SYS_ADMIN)", remedy: "run this as root")
        case .cannotOpen(let path, let errno): Diagnosis("cannot open \(path): \(errno)")
        case .ringUnavailable(.invalidArgument):
            Diagnosis("this kernel's io_uring has no 128-byte submissions", remedy: "use \(KernelRelease.oldest) or later")
        case .ringUnavailable(let errno): RingRefusal.diagnosis(errno)
        default: nil
        }
    }
}

extension UblkControlError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .noDriver, .notPermitted, .cannotOpen, .ringUnavailable:
            diagnosis?.description ?? ""
        case .invalidParameters(let violation):
            "the disk's parameters are not possible: \(violation)"
        case .outOfRange(let command, let what, let value, let allowed):
            "cannot \(command.purpose(deviceID: nil)): \(what) must be \(allowed.lowerBound) to \(allowed.upperBound), "
                + "not \(value)"
        case .featureMissing(let command, let deviceID, let feature):
            "cannot \(command.purpose(deviceID: deviceID)): it was added without \(feature), which needs Linux "
                + "\(command.firstKernel) or later"
        case .wrongState(let command, let deviceID, let state):
            "cannot \(command.purpose(deviceID: deviceID)): it is \(state), not live"
        case .refused(let command, let deviceID, let errno):
            "cannot \(command.purpose(deviceID: deviceID)): "
                + refusalReason(command: command, deviceID: deviceID, errno: errno)
        case .timedOut(let command, let deviceID, let duration, let hint):
            "cannot \(command.purpose(deviceID: deviceID)): the kernel did not answer within "
                + "\(seconds(duration)); \(hint)"
        }
    }

    private func seconds(_ duration: Duration) -> String {
        let milliseconds = duration.milliseconds
        return milliseconds % 1000 == 0 ? "\(milliseconds / 1000) s" : "\(milliseconds) ms"
    }
}
