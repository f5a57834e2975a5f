import Glibc

/// The number of a device, or of a file system, taken apart as the C library does.
package struct DeviceNumber: Equatable, CustomStringConvertible {
    package let major: UInt64
    package let minor: UInt64

    package init(_ number: dev_t) {
        let number = UInt64(number)
        major = (number >> 8) & 0xfff | (number >> 32) & ~0xfff
        minor = (number & 0xff | (number >> 12) & ~0xff) & 0xffff_ffff
    }

    /// "major:minor", as in /sys and mountinfo.
    package var description: String { "\(major):\(minor)" }
}
