import Glibc
import Platform
import SystemPackage
import Ublk

/// A symbolic link that leads to a device's disk, where the administrator wants one: `add --symlink PATH`.
///
/// It is the device's: there when `add` returns, left alone while the device waits for a server, and gone with it. What is
/// somebody else's at that path stays.
public struct DeviceLink: Hashable, Sendable {
    /// Absolute.
    public let path: String

    public init(path: String) {
        precondition(path.utf8.first == UInt8(ascii: "/"), "a link without its directory")
        self.path = path
    }

    /// Whether it can be made, as far as that is known before there is a device.
    /// - Throws: why it cannot.
    func check() throws(DeviceLinkError) {
        guard isLeft || !isThere else { throw error(.exists) }
        let directory = FilePath(path).removingLastComponent().string
        guard access("\(directory)/.", W_OK) == 0 else { throw error(.cannotMake(Errno(rawValue: errno))) }
    }

    /// Makes it, in place of one that leads to a disk that is gone, and of nothing else.
    func make(to deviceID: UInt32) throws(DeviceLinkError) {
        if isLeft { unlink(path) }
        guard symlink(UblkPaths.blockDevice(deviceID), path) == 0 else {
            throw error(errno == EEXIST ? .exists : .cannotMake(Errno(rawValue: errno)))
        }
    }

    /// Takes it away, unless it leads elsewhere by now.
    func remove(to deviceID: UInt32) {
        if ProcessFiles.target(ofLink: path) == UblkPaths.blockDevice(deviceID) { unlink(path) }
    }

    private var isThere: Bool {
        var status = stat()
        return lstat(path, &status) == 0
    }

    /// A device that ended with its machine, or was ended by somebody who knew nothing of the link, has left it.
    private var isLeft: Bool {
        guard let target = ProcessFiles.target(ofLink: path), UblkPaths.deviceID(ofBlockDevice: target) != nil else {
            return false
        }
        return access(target, F_OK) != 0 && errno == ENOENT
    }

    private func error(_ fault: DeviceLinkError.Fault) -> DeviceLinkError { DeviceLinkError(path: path, fault: fault) }
}

/// Why a device has no link of that name.
public struct DeviceLinkError: Error, Equatable, CustomStringConvertible {
    public enum Fault: Equatable, Sendable {
        case exists
        case isAnothers(id: UInt32)
        case cannotMake(Errno)
    }

    public let path: String
    public let fault: Fault

    public var description: String {
        switch fault {
        case .exists: "\(path): exists already; give another name for the link, or remove it"
        case .isAnothers(let id):
            "\(path): is the link of \(UblkPaths.blockDevice(id)); give another name for the link, or remove that device"
        case .cannotMake(let errno): "\(path): the link cannot be made: \(errno)"
        }
    }
}
