import BlockStorage
import CSupport
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// A file under construction: it has no name until it is complete, so a failure, a signal or a kill leaves nothing.
///
/// Where the file system has no nameless files, or there is no /proc to find them by, it gets a temporary name in the same
/// directory; there a kill, and nothing else, leaves it.
final class OutputFile {
    let path: String
    private let parentPath: String
    private let directory: Int32
    private let name: String
    private let file: Int32
    private var temporaryName: String?
    /// What is to be replaced: locked, so that nobody has it open meanwhile.
    private let replaced: ImageFile?
    /// Makes a directory durable: 0 or a negative errno.
    var syncDirectory: (Int32) -> Int32 = cs_fsync

    /// - Parameter replaces: whether an existing file may be replaced; it is there until `publish`.
    init(path: String, replaces: Bool) throws(ImageToolError) {
        self.path = path
        guard let component = FilePath(path).lastComponent, component.kind == .regular else {
            throw .read(.file(.notARegularFile(path: path)))
        }
        var status = stat()
        let exists = lstat(path, &status) == 0
        guard replaces || !exists else { throw .exists(path: path) }
        replaced =
            exists
            ? try ImageFile.openedForTool(path, .readWrite, sharing: false, allowBlockDevice: false) : nil
        let place: FilePath
        do throws(ImageFileError) {
            place = FilePath(
                try replaced.map { file throws(ImageFileError) in try AbsolutePath.ofReplaced(path, openedAs: file) } ?? path)
        } catch {
            throw .read(.file(error))
        }
        name = place.lastComponent?.string ?? component.string

        let parent = place.removingLastComponent()
        directory = open(parent.isEmpty ? "." : parent.string, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { throw OutputFile.creationError(path, errno, isDirectory: true) }
        parentPath = parent.isEmpty ? "." : parent.string
        var descriptor =
            ProcessFiles.areVisible ? cs_create_unnamed(directory, OutputFile.permissions) : -Errno.notSupported.rawValue
        if descriptor < 0 {
            let temporary = ".qed-ublk-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
            let unnamedError = -descriptor
            descriptor = cs_create_exclusive(directory, temporary, replaced == nil ? OutputFile.permissions : 0o600)
            if descriptor < 0 {
                cs_close(directory)
                throw OutputFile.creationError(path, descriptor < 0 ? -descriptor : unnamedError, isDirectory: false)
            }
            temporaryName = temporary
        }
        file = descriptor
    }

    deinit {
        if let temporaryName { _ = cs_remove(directory, temporaryName) }
        cs_close(file)
        cs_close(directory)
    }

    /// What to open the file by, as long as it has no name.
    var workingPath: String { temporaryName.map { "\(parentPath)/\($0)" } ?? "/proc/self/fd/\(file)" }

    /// Gives the file its first bytes and its length; the rest is a hole.
    func fill(_ firstBytes: [UInt8], sizeBytes: UInt64) throws(ImageToolError) {
        do { try FileDescriptor(rawValue: file).resize(to: Int64(sizeBytes)) } catch { throw writeError(error) }
        try write(firstBytes)
    }

    /// Puts other first bytes in place of those that the file has; nobody has it open.
    func write(_ firstBytes: [UInt8]) throws(ImageToolError) {
        do { try FileDescriptor(rawValue: file).writeAll(toAbsoluteOffset: 0, firstBytes) } catch { throw writeError(error) }
    }

    private func writeError(_ error: any Error) -> ImageToolError {
        .cannotCreate(.failed(path: path, step: "cannot write the file", errno: error as? Errno ?? .ioError))
    }

    /// Makes the file durable and gives it its name.
    func publish() throws(ImageToolError) {
        if let replaced {
            do throws(Errno) { try FileOwnership(of: replaced.descriptor).give(to: file) } catch {
                throw .cannotCreate(
                    .failed(path: path, step: "cannot keep the owner and mode of the file that is replaced", errno: error))
            }
        }
        try check(cs_fdatasync(file), "cannot make the file durable")
        if temporaryName == nil {
            if replaced == nil {
                let linked = cs_link_unnamed(file, directory, name)
                // Somebody was faster.
                if -linked == EEXIST { throw .exists(path: path) }
                try check(linked, "cannot name the file")
            } else {
                let temporary = ".qed-ublk-\(String(UInt64.random(in: 0 ... .max), radix: 16))"
                try check(cs_link_unnamed(file, directory, temporary), "cannot name the file")
                temporaryName = temporary
            }
        }
        if let temporary = temporaryName {
            let renamed =
                replaced == nil
                ? cs_rename_no_replace(directory, temporary, name)
                : cs_rename(directory, temporary, name)
            if -renamed == EEXIST { throw .exists(path: path) }
            try check(renamed, "cannot name the file")
            temporaryName = nil
        }
        // Some network file systems cannot sync a directory and say so. The file stays: it is complete, and what it has
        // replaced is gone.
        let synced = syncDirectory(directory)
        if synced < 0 && -synced != EINVAL {
            try check(
                synced,
                replaced == nil
                    ? "is complete, but its directory cannot be made durable: after a power cut it may have no name"
                    : "is the new file now, but its directory cannot be made durable: after a power cut the old one may be back")
        }
    }

    private func check(_ result: Int32, _ step: String) throws(ImageToolError) {
        guard result < 0 else { return }
        throw .cannotCreate(.failed(path: path, step: step, errno: Errno(rawValue: -result)))
    }

    private static let permissions: UInt32 = 0o644

    private static func creationError(_ path: String, _ code: Int32, isDirectory: Bool) -> ImageToolError {
        switch code {
        case ENOENT, ENOTDIR: .cannotCreate(.directoryNotFound(path: path))
        case EACCES, EPERM, EROFS: .cannotCreate(.noPermission(path: path))
        default:
            .cannotCreate(
                .failed(
                    path: path, step: isDirectory ? "cannot open the directory" : "cannot create the file",
                    errno: Errno(rawValue: code)))
        }
    }
}
