import BlockStorage
import Glibc
import Platform
import SystemPackage

/// What went wrong in the registry's directory.
public struct RegistryError: Error, Equatable, CustomStringConvertible {
    /// What was tried, for "cannot …".
    public var attempt: String
    public var path: String
    public var errno: Errno
    /// It is a directory of somebody who is neither root nor us.
    public var isAnotherUsers = false

    public init(attempt: String, path: String, errno: Errno) {
        self.attempt = attempt
        self.path = path
        self.errno = errno
    }

    public var diagnosis: Diagnosis {
        if isAnotherUsers {
            return Diagnosis(
                "cannot \(attempt) \(path): it belongs to another user, who could change what is recorded there",
                remedy: "remove it, or choose another QED_UBLK_RUNTIME_DIR")
        }
        let advice: String? =
            switch errno {
            case .permissionDenied, .notPermitted, .readOnlyFileSystem: "run this as root"
            case .noSuchFileOrDirectory: "its parent directory does not exist"
            case .notDirectory: "something else has that name, so remove it"
            case .fileTooLarge: "give fewer options for backing files"
            default: nil
            }
        return Diagnosis("cannot \(attempt) \(path): \(errno)", remedy: advice)
    }

    public var description: String { "\(diagnosis)" }
}

/// The devices that this program serves: one record file each, ublkN.json, in a directory of root's under /run.
///
/// Any process may read it at any time: a record appears and changes whole. Whatever else lies there is ignored.
/// A record may outlive its server; `DeviceRecord.server.isRunning` tells.
public struct DeviceRegistry: Sendable {
    public let directory: String

    /// Enough for every option that fits into a command line; a larger one is not written.
    static let recordLimitBytes = 512 * 1024

    /// `QED_UBLK_RUNTIME_DIR`, or /run/qed-ublk. Records and control sockets are there.
    public static var standardDirectory: String {
        directory(chosen: getenv("QED_UBLK_RUNTIME_DIR").map { String(cString: $0) })
    }

    static func directory(chosen: String?) -> String {
        guard let chosen, !chosen.isEmpty else { return "/run/qed-ublk" }
        return absolutePath(chosen)
    }

    public init(directory: String = standardDirectory) { self.directory = directory }

    /// Writes a device's record, in place of an earlier one. Makes the directory where it is missing.
    public func record(_ record: DeviceRecord) throws(RegistryError) {
        try prepare(record).write()
    }

    /// Writes a record without putting it into its place yet. What is prepared for a device later, by this process, replaces it.
    func prepare(_ record: DeviceRecord) throws(RegistryError) -> PreparedRecord {
        precondition(record.imagePath.utf8.first == UInt8(ascii: "/"), "a record names its image absolutely")
        try makeDirectory()
        removeLeftOvers()
        let temporary = "\(directory)/.ublk\(record.deviceID).json.\(getpid())"
        // A left-over of a dead process that had our id.
        unlink(temporary)
        do throws(RegistryError) {
            let text = record.json.description + "\n"
            guard text.utf8.count <= Self.recordLimitBytes else {
                throw RegistryError(attempt: "write", path: path(record.deviceID), errno: .fileTooLarge)
            }
            try write(text, to: temporary)
        } catch {
            unlink(temporary)
            throw error
        }
        return PreparedRecord(temporary: temporary, path: path(record.deviceID))
    }

    /// Removes a device's record, and what is the device's alone; without one, does nothing.
    public func remove(_ deviceID: UInt32) throws(RegistryError) {
        removeLeftOvers()
        record(of: deviceID)?.removeBelongings()
        guard unlink(path(deviceID)) != 0, errno != ENOENT else { return }
        throw RegistryError(attempt: "remove", path: path(deviceID), errno: Errno(rawValue: errno))
    }

    /// Removes a record, unless its device has another server's by now.
    public func remove(_ record: DeviceRecord) throws(RegistryError) {
        guard let current = self.record(of: record.deviceID) else { return }
        if current.isOfSameServer(as: record) { try remove(record.deviceID) }
    }

    /// All records, by device id. Half-written, unreadable and foreign files are left out; no directory is no records.
    public func list() -> [DeviceRecord] {
        ProcessFiles.names(in: directory).compactMap { Self.deviceID(ofFile: $0).flatMap(record(of:)) }
            .sorted { $0.deviceID < $1.deviceID }
    }

    /// The record of one device.
    public func record(of deviceID: UInt32) -> DeviceRecord? {
        guard let content = readSmallFile(path(deviceID), limitBytes: Self.recordLimitBytes),
            let json = JSONValue(parsing: content), let record = DeviceRecord(json), record.deviceID == deviceID
        else { return nil }
        return record.settled
    }

    private static let changes = Lock(())

    /// Changes the record of a device that this process serves, whose threads may each change a part of it.
    /// - Parameter own: what it says where it is gone, or somebody has put another one in its place.
    func change(_ own: DeviceRecord, _ change: (inout DeviceRecord) -> Void) throws(RegistryError) {
        try Self.changes.withLock { _ throws(RegistryError) in
            var record = own
            if let current = self.record(of: own.deviceID), current.isOfSameServer(as: own) { record = current }
            change(&record)
            try self.record(record)
        }
    }

    /// The devices that are meant: at most one by number, several where an image is served more than once.
    ///
    /// An image is found by what file its path names; where that file is gone, by the path itself; and a device by its name,
    /// where no file has it.
    public func find(_ reference: DeviceReference) -> [DeviceRecord] {
        switch reference {
        case .device(let deviceID):
            return record(of: deviceID).map { [$0] } ?? []
        case .image(let path):
            if let image = FileIdentity(ofFileAt: path) { return list().filter { $0.image == image } }
            let records = records(ofPath: path)
            if records.isEmpty, let name = DeviceName(path) { return list().filter { $0.name == name } }
            return records
        }
    }

    /// The one device that is meant.
    /// - Parameter name: as `DeviceReference` reads it.
    public func device(named name: String) throws(DeviceReferenceError) -> DeviceRecord {
        let records = find(DeviceReference(name))
        guard let record = records.first else { throw .notFound(name) }
        guard records.count == 1 else { throw .ambiguous(name, records.map(\.deviceID)) }
        return record
    }

    /// The devices whose image was given by that path, whatever file it names now.
    public func records(ofPath path: String) -> [DeviceRecord] {
        let names = [try? AbsolutePath.ofFile(path), Self.absolutePath(path)].compactMap { $0 }
        return list().filter { record in names.contains { record.imagePath.utf8.elementsEqual($0.utf8) } }
    }

    /// Takes away what writers have left that were killed before they could put it into its place.
    private func removeLeftOvers() {
        for name in ProcessFiles.names(in: directory) {
            if let writer = Self.writer(ofTemporary: name), kill(writer, 0) != 0, errno == ESRCH {
                unlink("\(directory)/\(name)")
            }
        }
    }

    /// The process in ".ublkN.json.PROCESS".
    private static func writer(ofTemporary name: String) -> pid_t? {
        let parts = name.split(separator: ".", omittingEmptySubsequences: false)
        guard parts.count == 4, parts[0].isEmpty, deviceID(ofFile: "\(parts[1]).\(parts[2])") != nil,
            let writer = pid_t(parts[3]), writer > 0
        else { return nil }
        return writer
    }

    private func path(_ deviceID: UInt32) -> String { "\(directory)/ublk\(deviceID).json" }

    /// The number in "ublkN.json".
    private static func deviceID(ofFile name: String) -> UInt32? {
        guard name.hasPrefix("ublk"), name.hasSuffix(".json"), name.utf8.count > 9 else { return nil }
        return DeviceReference.deviceID(name.dropFirst(4).dropLast(5))
    }

    /// The path without "." and "..", from the root.
    static func absolutePath(_ path: String) -> String {
        if path.utf8.first == UInt8(ascii: "/") { return FilePath(path).lexicallyNormalized().string }
        guard let current = getcwd(nil, 0) else { return path }
        defer { free(current) }
        return FilePath(String(cString: current)).appending(path).lexicallyNormalized().string
    }
}

/// A record that is written, but not in its place yet.
struct PreparedRecord {
    fileprivate let temporary: String
    fileprivate let path: String

    /// Puts it into its place, which needs no space.
    func put() { _ = rename(temporary, path) }

    fileprivate func write() throws(RegistryError) {
        guard rename(temporary, path) != 0 else { return }
        let code = errno
        unlink(temporary)
        throw RegistryError(attempt: "write", path: path, errno: Errno(rawValue: code))
    }

    func discard() { unlink(temporary) }
}

// Writing.
extension DeviceRegistry {
    /// Whoever owns the directory decides what is served with the rights of whoever believes its records. One that is missing
    /// is nobody's.
    public func checkOwner() throws(RegistryError) {
        var status = stat()
        if stat(directory, &status) == 0 { try checkOwner(status) }
    }

    private func checkOwner(_ status: stat) throws(RegistryError) {
        guard status.st_uid != 0, status.st_uid != geteuid() else { return }
        var error = RegistryError(attempt: "use the directory", path: directory, errno: .notPermitted)
        error.isAnotherUsers = true
        throw error
    }

    /// Makes the directory where it is missing.
    public func makeDirectory() throws(RegistryError) {
        if mkdir(directory, 0o755) == 0 {
            // Whatever the umask took away: everybody may list devices.
            try check(chmod(directory, 0o755), "make the directory", directory)
            return
        }
        let code = errno
        var status = stat()
        if code == EEXIST && stat(directory, &status) == 0 {
            guard status.st_mode & S_IFMT == S_IFDIR else {
                throw RegistryError(attempt: "make the directory", path: directory, errno: .notDirectory)
            }
            try checkOwner(status)
            return
        }
        throw RegistryError(attempt: "make the directory", path: directory, errno: Errno(rawValue: code))
    }

    private func write(_ text: String, to path: String) throws(RegistryError) {
        let descriptor = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o644)
        try check(descriptor, "write", path)
        defer { close(descriptor) }
        try check(fchmod(descriptor, 0o644), "write", path)
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            let count = rest.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if count < 0 && errno == EINTR { continue }
            try check(Int32(clamping: count), "write", path)
            // Not seen on any file system; but no progress must not be tried for ever.
            guard count > 0 else { throw RegistryError(attempt: "write", path: path, errno: .noSpace) }
            rest = rest.dropFirst(count)
        }
    }

    private func check(_ result: Int32, _ attempt: String, _ path: String) throws(RegistryError) {
        guard result >= 0 else { throw RegistryError(attempt: attempt, path: path, errno: Errno(rawValue: errno)) }
    }
}
