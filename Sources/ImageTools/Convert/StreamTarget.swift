import BlockStorage
import CSupport
import Glibc
import SystemPackage

/// Where a raw disk can be sent to in order, instead of being a file of that name: standard output, an open descriptor, a FIFO
/// or a character device.
public struct StreamTarget {
    /// For messages.
    let name: String
    private let path: String
    /// The descriptor that the path stands for; nil where it is to be opened.
    private let inherited: Int32?

    /// nil where the path names a file, or nothing yet. Opens nothing.
    public init?(_ path: String) {
        self.path = path
        inherited = StreamTarget.descriptor(named: path)
        name = inherited == STDOUT_FILENO ? "standard output" : path
        guard inherited == nil else { return }
        var status = stat()
        guard stat(path, &status) == 0, [S_IFIFO, S_IFCHR].contains(status.st_mode & S_IFMT) else { return nil }
    }

    public var isStandardOutput: Bool { inherited == STDOUT_FILENO }

    /// Text is not to be written to where the disk goes.
    private static func descriptor(named path: String) -> Int32? {
        if path == Conversion.standardStream || path == "/dev/stdout" { return STDOUT_FILENO }
        if path == "/dev/stderr" { return STDERR_FILENO }
        for prefix in ["/dev/fd/", "/proc/self/fd/"] where path.hasPrefix(prefix) {
            if let number = Int32(path.dropFirst(prefix.count)), number >= 0 { return number }
        }
        return nil
    }

    /// Waits for a FIFO's reader.
    /// - Returns: a descriptor that is the caller's.
    func open() throws(ImageToolError) -> FileDescriptor {
        let descriptor = inherited.map { dup($0) } ?? Glibc.open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY)
        guard descriptor >= 0 else { throw failure("opening", 0, Errno(rawValue: errno)) }
        let stream = FileDescriptor(rawValue: descriptor)
        guard isatty(descriptor) == 0 else {
            try? stream.close()
            throw .refused(path: name, reason: "is a terminal; send the disk to a program or a file")
        }
        return stream
    }

    func failure(_ operation: String, _ deviceOffset: UInt64, _ errno: Errno) -> ImageToolError {
        .request(path: name, operation, deviceOffset: deviceOffset, errno)
    }
}

extension FileDescriptor {
    /// Writes all of it, also where somebody has made the descriptor not wait.
    func writeWaiting(_ bytes: UnsafeRawBufferPointer) throws(Errno) {
        var done = 0
        while done < bytes.count {
            let count = Glibc.write(rawValue, bytes.baseAddress.map { $0 + done }, bytes.count - done)
            if count >= 0 {
                done += count
            } else if errno == EAGAIN {
                wait(for: Int16(POLLOUT))
            } else if errno != EINTR {
                throw Errno(rawValue: errno)
            }
        }
    }

    /// Reads some bytes, also where somebody has made the descriptor not wait; 0 at the end.
    func readWaiting(into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        while true {
            let count = Glibc.read(rawValue, buffer.baseAddress, buffer.count)
            if count >= 0 { return count }
            if errno == EAGAIN {
                wait(for: Int16(POLLIN))
            } else if errno != EINTR {
                throw Errno(rawValue: errno)
            }
        }
    }

    private func wait(for events: Int16) {
        var polled = pollfd(fd: rawValue, events: events, revents: 0)
        _ = poll(&polled, 1, -1)
    }
}
