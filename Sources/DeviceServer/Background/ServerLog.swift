import BlockStorage
import CSupport
import Glibc
import Platform
import SystemPackage

/// The log of a server in the background: its standard error, a file beside the device's record.
///
/// It has no name until the device is usable, so that an `add` that fails or is killed leaves none.
enum ServerLog {
    static func path(deviceID: UInt32) -> String { "\(DeviceRegistry.standardDirectory)/ublk\(deviceID).log" }

    /// That of the server before: what it died of may be there.
    static func earlierPath(deviceID: UInt32) -> String { path(deviceID: deviceID) + ".1" }

    /// Makes the file.
    static func create() throws(RegistryError) -> FileDescriptor {
        try DeviceRegistry().makeDirectory()
        let directory = try openDirectory()
        defer { try? directory.close() }
        let descriptor = cs_create_unnamed(directory.rawValue, 0o644)
        guard descriptor >= 0 else { throw failure(Errno(rawValue: -descriptor)) }
        return FileDescriptor(rawValue: descriptor)
    }

    /// In the server: gives the log its name. That of the server whose device this one has taken over gets the earlier one's.
    /// - Parameter directory: opened before the server had a mount namespace of its own. A file gets no name through another
    ///   mount than it was made through, and the same mount in another namespace is another one.
    static func publish(deviceID: UInt32, recovers: Bool, in directory: FileDescriptor) throws(RegistryError) {
        let path = path(deviceID: deviceID)
        if recovers {
            rename(path, earlierPath(deviceID: deviceID))
        } else {
            unlink(path)
            unlink(earlierPath(deviceID: deviceID))
        }
        let name = String(path[path.index(after: path.lastIndex(of: "/") ?? path.startIndex)...])
        let result = cs_link_unnamed(STDERR_FILENO, directory.rawValue, name)
        guard result == 0 else { throw failure(Errno(rawValue: -result)) }
    }

    /// A sentence of somebody else than the server about the device: at the end of its log, and in the system's.
    static func append(_ sentence: String, deviceID: UInt32) {
        let line = "qed-ublk: \(sentence.printable)\n"
        let descriptor = open(path(deviceID: deviceID), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW)
        if descriptor >= 0 {
            _ = try? FileDescriptor(rawValue: descriptor).writeAll(line.utf8)
            close(descriptor)
        }
        let format = line.split(separator: "%", omittingEmptySubsequences: false).joined(separator: "%%")
        withVaList([]) { vsyslog(LOG_DAEMON | LOG_WARNING, format, $0) }
    }

    /// In the server: removes the name again, and the earlier log, unless it is a later server's by now.
    static func remove(deviceID: UInt32) {
        let path = path(deviceID: deviceID)
        if let own = try? FileIdentity(descriptor: STDERR_FILENO), FileIdentity(ofFileAt: path) == own {
            unlink(path)
            unlink(earlierPath(deviceID: deviceID))
        }
    }

    /// The end of what a server has written that died without a word.
    static func lastWords(_ log: FileDescriptor) -> String {
        var bytes = [UInt8](repeating: 0, count: 2000)
        let count = (try? bytes.withUnsafeMutableBytes { try log.read(fromAbsoluteOffset: 0, into: $0) }) ?? 0
        return String(decoding: bytes.prefix(count), as: UTF8.self)
            .split(whereSeparator: \.isNewline).suffix(3).joined(separator: " / ")
    }

    static func openDirectory() throws(RegistryError) -> FileDescriptor {
        do {
            return try FileDescriptor.open(
                DeviceRegistry.standardDirectory, .readOnly, options: [.directory, .closeOnExec])
        } catch {
            throw failure(error as? Errno ?? .ioError)
        }
    }

    private static func failure(_ errno: Errno) -> RegistryError {
        RegistryError(attempt: "write a log in", path: DeviceRegistry.standardDirectory, errno: errno)
    }
}
