import Glibc
import IOURing
import Platform
import SystemPackage

/// Why a device's character device could not be opened.
public struct UblkOpenError: Error, Equatable, CustomStringConvertible {
    public var path: String
    public var errno: Errno

    public var description: String {
        switch errno {
        case .resourceBusy:
            "cannot open \(path): another process serves this device, or its last server has not quite ended"
        case .noSuchFileOrDirectory:
            "cannot open \(path): it did not appear; see that devtmpfs or udev makes nodes in this /dev"
        case .permissionDenied, .notPermitted:
            "cannot open \(path): serving a ublk device needs root (CAP_SYS_ADMIN)"
        default:
            "cannot open \(path): \(errno)"
        }
    }
}

/// /dev/ublkcN, through which a server maps descriptors, fetches and commits. One process at a time has it open.
///
/// On recent kernels the process that opens it is the server, whose id `startDevice` must name; fork before.
public final class UblkCharacterDevice: Sendable {
    public let id: UInt32
    /// Valid until `close`.
    public let descriptor: Int32
    private let isOpen = Lock(true)

    /// Opens the node, trying again for a bounded time: it may not have appeared, udev may be looking at it or not have
    /// set its mode yet, and the kernel lets go of a previous server with some delay.
    public static func open(
        id: UInt32, timeout: Duration = .seconds(5)
    ) throws(UblkOpenError) -> UblkCharacterDevice {
        let path = UblkPaths.characterDevice(id)
        return UblkCharacterDevice(id: id, descriptor: try openPatiently(path: path, timeout: timeout))
    }

    static func openPatiently(path: String, timeout: Duration) throws(UblkOpenError) -> Int32 {
        let deadline = Deadline(after: timeout)
        while true {
            let descriptor = Glibc.open(path, O_RDWR | O_CLOEXEC)
            if descriptor >= 0 { return descriptor }
            let code = errno
            let mayPass = [ENOENT, EBUSY, EACCES, EINTR].contains(code)
            guard mayPass && !deadline.hasPassed else {
                throw UblkOpenError(path: path, errno: Errno(rawValue: code))
            }
            pause(.milliseconds(10))
        }
    }

    init(id: UInt32, descriptor: Int32) {
        self.id = id
        self.descriptor = descriptor
    }

    /// Closes it, once. Mappings, and rings that have it registered, keep the device in use until they are gone too.
    public func close() {
        isOpen.withLock { isOpen in
            if isOpen { Glibc.close(descriptor) }
            isOpen = false
        }
    }

    deinit { close() }
}
