import Glibc
import Platform
import SystemPackage

/// Names for a process that has another working directory, or comes later: of a server, and of the next one.
public enum AbsolutePath {
    /// The file of that name. A relative name starts at where its directory really is, symbolic links followed; the file
    /// itself may be one, and stays one.
    /// - Throws: why the directory cannot be found.
    public static func ofFile(_ path: String) throws(ImageFileError) -> String {
        guard path.utf8.first != UInt8(ascii: "/") else { return path }
        let bytes = Array(path.utf8)
        let nameStart = bytes.lastIndex(of: UInt8(ascii: "/")).map { $0 + 1 } ?? 0
        let parent = nameStart == 0 ? "." : String(decoding: bytes[..<nameStart], as: UTF8.self)
        let directory = try real(parent, shownAs: path)
        let name = String(decoding: bytes[nameStart...], as: UTF8.self)
        return directory.hasSuffix("/") ? directory + name : "\(directory)/\(name)"
    }

    /// Where a directory really is, symbolic links followed: whoever changes a link later does not change what may be opened.
    /// - Throws: why it cannot be found.
    public static func ofDirectory(_ path: String) throws(ImageFileError) -> String { try real(path, shownAs: path) }

    /// The place of a file that another one is to take: where a symbolic link leads, so that the link stays.
    /// - Parameter file: what `path` has been opened as.
    /// - Throws: `changedWhileOpening` where it leads elsewhere by now.
    public static func ofReplaced(_ path: String, openedAs file: ImageFile) throws(ImageFileError) -> String {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return path }
        let place = try real(path, shownAs: path)
        guard FileIdentity(ofFileAt: place) == file.identity else { throw .changedWhileOpening(path: path) }
        return place
    }

    private static func real(_ path: String, shownAs shown: String) throws(ImageFileError) -> String {
        guard let found = realpath(path, nil) else { throw ImageFileError(path: shown, opening: Errno(rawValue: errno)) }
        defer { free(found) }
        // A repaired name would be that of another directory.
        guard let real = String(validatingCString: found) else {
            throw .cannotOpen(path: shown, errno: .illegalByteSequence)
        }
        return real
    }
}
