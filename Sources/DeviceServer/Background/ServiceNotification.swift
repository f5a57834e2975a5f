import CSupport
import Glibc

/// Tells the service manager that started this process how it is doing: one datagram to the socket that NOTIFY_SOCKET
/// names, as sd_notify(3) describes it.
struct ServiceNotification {
    private let descriptor: Int32

    /// Connects, while the process still may. Nil where no service manager waits for it.
    init?() {
        guard let name = getenv("NOTIFY_SOCKET") else { return nil }
        // A socket in the file system, or with an @ in front one of the abstract ones.
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var bytes = Array(String(cString: name).utf8)
        guard let first = bytes.first, first == UInt8(ascii: "/") || first == UInt8(ascii: "@"),
            bytes.count < MemoryLayout.size(ofValue: address.sun_path)
        else { return nil }
        if first == UInt8(ascii: "@") { bytes[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let length = MemoryLayout<sockaddr_un>.offset(of: \.sun_path).map { $0 + bytes.count } ?? 0
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        // SAFETY: the address is a sockaddr_un of `length` bytes; connect only reads it.
        let result = withUnsafePointer(to: address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { connect(descriptor, $0, socklen_t(length)) }
        }
        guard result == 0 else {
            close(descriptor)
            return nil
        }
    }

    /// The device is usable. Once.
    func ready(_ status: String) {
        let message = Array("READY=1\nSTATUS=\(status)\nMAINPID=\(getpid())\n".utf8)
        send(descriptor, message, message.count, Int32(truncatingIfNeeded: MSG_NOSIGNAL))
        close(descriptor)
    }
}
