import BlockStorage
import CSupport
import QEDEngine
import SystemPackage

/// A file that appears under its name complete and durable, or not at all.
///
/// The file is made without a name, filled, synced and only then linked into its directory, which fails if the name is
/// taken. A process killed on the way leaves nothing. File systems that cannot do this get a temporary name in the same
/// directory that is renamed in the end; there a kill, and nothing else, can leave the temporary file.
struct NewFile {
    /// How the file exists before it has its name.
    enum Method {
        case unnamed
        case temporaryName
    }

    /// What went wrong, and on the way to what.
    struct Failure: Error, Equatable {
        enum Step: String {
            case openDirectory = "cannot open the directory"
            case create = "cannot create the file"
            case own = "cannot keep the owner and mode of the file that is replaced"
            case write = "cannot write the file"
            case sync = "cannot make the file durable"
            case name = "cannot name the file"
            case replace =
                "is the new file now, but its directory cannot be made durable: after a power cut the old one may be back"
        }

        let step: Step
        let errno: Errno
    }

    /// Where the file appears.
    let path: FilePath
    /// The file's first bytes. The rest is a hole.
    let firstBytes: [UInt8]
    /// Length of the file.
    let sizeBytes: Int64
    /// Whether it takes the place of a file of that name, which is there until the new one is complete.
    var replacesExisting = false
    /// Of the file that is replaced.
    var ownership: FileOwnership?
    /// Called with the file, durable, before it gets its name; what it throws keeps it from that.
    var willBeNamed: ((Int32) throws(Errno) -> Void)?
    /// Makes a directory durable: 0 or a negative errno.
    var syncDirectory: (Int32) -> Int32 = cs_fsync

    /// Blocks until the file and its name are durable.
    /// - Throws: a failure with `fileExists` if something of that name exists, unless it is to be replaced. Nothing is
    ///   left then or at any other error but one: a file that has taken another's place stays (`Failure.Step.replace`).
    func create() throws(Failure) {
        // Only a file with a name can be renamed over another.
        if replacesExisting { return try create(by: .temporaryName) }
        do {
            try create(by: .unnamed)
        } catch
            where [.notSupported, .isDirectory, .invalidArgument, .noSuchFileOrDirectory].contains(error.errno)
            && (error.step == .create || error.step == .name)
        {
            // The file system has no unnamed files, or (without privilege and without /proc) they cannot be named.
            try create(by: .temporaryName)
        }
    }

    func create(by method: Method) throws(Failure) {
        guard let name = path.lastComponent, name.kind == .regular else {
            throw Failure(step: .create, errno: .fileExists)
        }
        let directory = try NewFile.openDirectory(of: path)
        defer { cs_close(directory.rawValue) }

        switch method {
        case .unnamed:
            let file = FileDescriptor(
                rawValue: try NewFile.check(.create, cs_create_unnamed(directory.rawValue, NewFile.permissions)))
            defer { cs_close(file.rawValue) }
            try fill(file)
            try tell(file)
            try NewFile.check(.name, cs_link_unnamed(file.rawValue, directory.rawValue, name.string))
        case .temporaryName:
            let temporaryName = ".qed-ublk-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
            let file = FileDescriptor(
                rawValue: try NewFile.check(
                    .create,
                    cs_create_exclusive(
                        directory.rawValue, temporaryName, ownership == nil ? NewFile.permissions : 0o600)))
            defer { cs_close(file.rawValue) }
            do throws(Failure) {
                try fill(file)
                try tell(file)
                try NewFile.check(
                    .name,
                    replacesExisting
                        ? cs_rename(directory.rawValue, temporaryName, name.string)
                        : cs_rename_no_replace(directory.rawValue, temporaryName, name.string))
            } catch {
                _ = cs_remove(directory.rawValue, temporaryName)
                throw error
            }
        }

        // The name is durable with its directory. Some network file systems cannot sync one and say so.
        let synced = syncDirectory(directory.rawValue)
        if synced < 0, Errno(rawValue: -synced) != .invalidArgument {
            // What was replaced is gone: without the new file there would be neither.
            if replacesExisting { try NewFile.check(.replace, synced) }
            _ = cs_remove(directory.rawValue, name.string)
            try NewFile.check(.sync, synced)
        }
    }

    /// Read and write for the owner, read for everybody else, less what the process's umask takes away.
    private static let permissions: UInt32 = 0o644

    private static func openDirectory(of path: FilePath) throws(Failure) -> FileDescriptor {
        let directory = path.removingLastComponent()
        do {
            return try FileDescriptor.open(
                directory.isEmpty ? "." : directory, .readOnly, options: [.directory, .closeOnExec])
        } catch {
            throw Failure(step: .openDirectory, errno: error as? Errno ?? .ioError)
        }
    }

    private func fill(_ file: FileDescriptor) throws(Failure) {
        do throws(Errno) { try ownership?.give(to: file.rawValue) } catch { throw Failure(step: .own, errno: error) }
        do {
            try file.resize(to: sizeBytes)
            try file.writeAll(toAbsoluteOffset: 0, firstBytes)
        } catch {
            throw Failure(step: .write, errno: error as? Errno ?? .ioError)
        }
        try NewFile.check(.sync, cs_fdatasync(file.rawValue))
    }

    private func tell(_ file: FileDescriptor) throws(Failure) {
        do throws(Errno) { try willBeNamed?(file.rawValue) } catch { throw Failure(step: .name, errno: error) }
    }

    @discardableResult
    private static func check(_ step: Failure.Step, _ result: Int32) throws(Failure) -> Int32 {
        guard result >= 0 else { throw Failure(step: step, errno: Errno(rawValue: -result)) }
        return result
    }
}
