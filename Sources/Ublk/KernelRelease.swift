import Glibc
import Platform

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

    /// Drivers before know the commands by other numbers alone, and `addDevice` is refused.
    public static let tooOld = Diagnosis(
        "this kernel's ublk driver knows only the command numbers of before \(oldest)", remedy: "use a newer kernel")
}

extension KernelRelease: CustomStringConvertible {
    public var description: String { "Linux \(major).\(minor).\(patch)\(suffix)" }
}
