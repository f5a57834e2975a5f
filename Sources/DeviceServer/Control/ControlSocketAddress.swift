import CSupport
import Glibc
import SystemPackage

/// Where a device's control socket is, ublkN.sock in the registry's directory; or another one that is talked to as with those.
struct ControlSocketAddress {
    let path: String

    init(path: String) { self.path = path }

    init(directory: String, deviceID: UInt32) { path = "\(directory)/ublk\(deviceID).sock" }

    /// A new socket of the kind that both sides use; does not block, not inherited.
    static func makeSocket() throws(Errno) -> Int32 {
        let descriptor = socket(
            AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw Errno(rawValue: errno) }
        return descriptor
    }

    /// Calls `body`, `bind` or `connect`, with the address.
    /// - Returns: the call's result.
    func withAddress(
        _ body: (UnsafePointer<sockaddr>, socklen_t) -> Int32
    ) throws(ControlSocketError) -> Int32 {
        var address = sockaddr_un()
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { throw .pathTooLong(path) }
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        // SAFETY: every address family's structure begins as sockaddr does, and the length is that of the whole.
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}

/// Reads what is there, into an array that may hold up to `limitBytes`.
/// - Returns: how many bytes came, 0 at the end of the stream, nil where none is there yet.
func receiveAvailable(_ descriptor: Int32, into content: inout [UInt8], limitBytes: Int) throws(Errno) -> Int? {
    let wanted = min(4096, limitBytes - content.count)
    precondition(wanted > 0, "a full buffer cannot receive")
    let size = content.count
    content.append(contentsOf: repeatElement(0, count: wanted))
    let count = content.withUnsafeMutableBytes { bytes in
        recv(descriptor, bytes.baseAddress?.advanced(by: size), wanted, Int32(MSG_DONTWAIT))
    }
    let code = errno
    content.removeLast(wanted - max(count, 0))
    if count >= 0 { return count }
    switch code {
    case EAGAIN, EINTR: return nil
    default: throw Errno(rawValue: code)
    }
}

/// Sends what the socket takes now.
/// - Returns: how many bytes; 0 where it takes none.
func sendAvailable(_ descriptor: Int32, _ content: ArraySlice<UInt8>) throws(Errno) -> Int {
    let count = content.withUnsafeBytes { bytes in
        send(descriptor, bytes.baseAddress, bytes.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
    }
    if count >= 0 { return count }
    switch errno {
    case EAGAIN, EINTR: return 0
    case let code: throw Errno(rawValue: code)
    }
}
