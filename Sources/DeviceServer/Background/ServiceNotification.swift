import CSupport
import Glibc

/// Tells the service manager that started this process how it is doing: one datagram to the socket that NOTIFY_SOCKET
/// names, as sd_notify(3) describes it.
enum ServiceNotification {
    /// The device is usable. Does nothing where no service manager waits for that.
    static func ready(_ status: String) {
        guard let name = getenv("NOTIFY_SOCKET") else { return }
        send("READY=1\nSTATUS=\(status)\nMAINPID=\(getpid())\n", toSocketNamed: String(cString: name))
    }

    /// A socket in the file system, or with an @ in front one of the abstract ones.
    private static func send(_ text: String, toSocketNamed name: String) {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(name.utf8)
        guard let first = bytes.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"),
            bytes.count < MemoryLayout.size(ofValue: address.sun_path)
        else { return }
        if first == UInt8(ascii: "@") { bytes[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = MemoryLayout<sockaddr_un>.offset(of: \.sun_path).map { $0 + bytes.count } ?? 0
        let descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        let message = Array(text.utf8)
        // SAFETY: the address is a sockaddr_un of `length` bytes; sendto only reads it.
        withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                _ = sendto(
                    descriptor, message, message.count, Int32(truncatingIfNeeded: MSG_NOSIGNAL), $0, socklen_t(length))
            }
        }
    }
}
