import Glibc

/// A kernel's version as `uname -r` prints it: "6.18.4-generic" is 6, 18, 4 and "-generic".
///
/// For messages alone; what a kernel can do is asked of its driver, since distributions move features between versions.
public struct KernelRelease: Equatable, Sendable {
    public var major: Int
    public var minor: Int
    public var patch: Int
    public var suffix: String

    /// nil when the text does not begin with two numbers.
    public init?(_ release: String) {
        var rest = release[...]
        guard let major = Self.takeNumber(&rest), Self.takeDot(&rest), let minor = Self.takeNumber(&rest) else {
            return nil
        }
        self.major = major
        self.minor = minor
        patch = Self.takeDot(&rest) ? Self.takeNumber(&rest) ?? 0 : 0
        suffix = String(rest)
    }

    private static func takeNumber(_ text: inout Substring) -> Int? {
        let digits = text.prefix { ("0"..."9").contains($0) }
        text = text.dropFirst(digits.count)
        return Int(digits)
    }

    private static func takeDot(_ text: inout Substring) -> Bool {
        guard text.first == "." else { return false }
        text = text.dropFirst()
        return true
    }

    /// The kernel that runs this program.
    public static var running: KernelRelease? {
        var name = utsname()
        guard uname(&name) == 0 else { return nil }
        let release = withUnsafeBytes(of: &name.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        return KernelRelease(release)
    }

    public func isAtLeast(_ major: Int, _ minor: Int) -> Bool { (self.major, self.minor) >= (major, minor) }

    /// The oldest kernel that devices work with: it numbers the driver's commands as ioctls (UBLK_F_CMD_IOCTL_ENCODE).
    public static let oldest = "Linux 6.4"

    /// A sentence about a defect of this kernel's ublk driver; nil where none is known.
    ///
    /// A change in 6.18.4, carried into some of Ubuntu's 6.17 kernels, makes ADD_DEV hang or oops; 6.18.6 has the
    /// correction.
    public var ublkDefect: String? {
        let isBroken =
            switch (major, minor, patch) {
            case (6, 18, 4), (6, 18, 5): true
            case (6, 17, 0): suffix.hasSuffix("-aws") || suffix == "-1015-azure" || suffix == "-1018-azure"
            default: false
            }
        guard isBroken else { return nil }
        return "Linux \(major).\(minor).\(patch)\(suffix) is known to hang or crash when a ublk device is added, "
            + "so use another kernel (6.18.6 or later of its series) and reboot"
    }
}
