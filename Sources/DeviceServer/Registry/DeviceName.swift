import Glibc
import Platform
import SystemPackage
import Ublk

/// A name that the administrator has given a device: /dev/qed/NAME leads to its disk.
///
/// The server makes the link, so that it is there when `add` returns; udev's rule makes the same one, which systemd then knows.
public struct DeviceName: Hashable, Sendable, CustomStringConvertible {
    public let text: String

    /// As long as an instance of the unit can be.
    static let limitBytes = 238

    /// nil unless it is what udev takes as the name of a link, and systemd as that of an instance: letters, digits, and any of
    /// ":_.@+-", with anything else as \x and two digits; no dot in front.
    public init?(_ text: String) {
        let bytes = Array(text.utf8)
        guard (1...DeviceName.limitBytes).contains(bytes.count), bytes[0] != UInt8(ascii: ".") else { return nil }
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\") {
                guard index + 4 <= bytes.count, bytes[index + 1] == UInt8(ascii: "x"),
                    bytes[index + 2...index + 3].allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit })
                else { return nil }
                index += 4
            } else {
                guard bytes[index].isLetterOrDigit || ":_.@+-".utf8.contains(bytes[index]) else { return nil }
                index += 1
            }
        }
        self.text = text
    }

    /// The name that an image has by its path, as `systemd-escape --path` writes it; nil where it would be too long for a link.
    public init?(ofImageAt path: String) {
        precondition(path.utf8.first == UInt8(ascii: "/"), "the name of an image without its directory")
        var text = ""
        for byte in FilePath(path).lexicallyNormalized().string.utf8.dropFirst() {
            if byte == UInt8(ascii: "/") {
                text += "-"
            } else if byte.isLetterOrDigit || ":_".utf8.contains(byte) || byte == UInt8(ascii: ".") && !text.isEmpty {
                text.unicodeScalars.append(Unicode.Scalar(byte))
            } else {
                text += "\\x" + String(UInt16(byte) | 0x100, radix: 16).dropFirst()
            }
        }
        self.init(text)
    }

    public var description: String { text }

    private static let directory = "/dev/qed"

    public var link: String { "\(DeviceName.directory)/\(text)" }

    private func target(_ deviceID: UInt32) -> String { "../" + UblkPaths.blockDevice(deviceID).dropFirst("/dev/".count) }

    /// Makes the link, in place of one that leads elsewhere.
    func makeLink(to deviceID: UInt32) throws(Errno) {
        if mkdir(DeviceName.directory, 0o755) == 0 { _ = chmod(DeviceName.directory, 0o755) }
        let new = "\(DeviceName.directory)/.ublk\(deviceID).\(getpid())"
        unlink(new)
        guard symlink(target(deviceID), new) == 0 else { throw Errno(rawValue: errno) }
        guard rename(new, link) == 0 else {
            let code = errno
            unlink(new)
            throw Errno(rawValue: code)
        }
    }

    /// Takes the link away, unless it leads to another device by now.
    func removeLink(to deviceID: UInt32) {
        if ProcessFiles.target(ofLink: link) == target(deviceID) { unlink(link) }
    }
}

extension UInt8 {
    fileprivate var isLetterOrDigit: Bool {
        switch self {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
            true
        default: false
        }
    }
}
