import BlockStorage
import Glibc
import Platform
import QEDChain
import SystemPackage

/// Looks for images that lie over files which are about to change: no lock tells of one that nobody has open.
///
/// Where it is likely: in the directories of those files. An overlay somewhere else is found only when it is open.
struct OverlaySearch {
    /// A file that could be one.
    struct Doubt: Error, Equatable {
        let path: String
        let errno: Errno
    }

    /// So many files of a directory are looked at.
    private static let fileLimit = 100_000

    /// - Parameters:
    ///   - files: that are about to change.
    ///   - known: those of the chain itself: they may lie over each other.
    ///   - directories: to look in.
    /// - Returns: the path of an image that names one of the files as its backing file, and that file's.
    /// - Throws: where one cannot be read.
    static func overlay(
        of files: [FileIdentity: String], besides known: Set<FileIdentity>, in directories: Set<String>
    ) throws(Doubt) -> (overlay: String, file: String)? {
        for directory in directories.sorted() {
            guard let entries = opendir(directory) else { continue }
            defer { closedir(entries) }
            var count = 0
            while let entry = readdir(entries), count < fileLimit {
                count += 1
                // A link leads to what is in its own directory, or somewhere else.
                guard entry.pointee.d_type == UInt8(DT_REG) || entry.pointee.d_type == UInt8(DT_UNKNOWN) else { continue }
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                }
                let path = directory + "/" + name
                let identity: FileIdentity?
                do throws(Errno) { identity = try FileIdentity.found(at: path) } catch { throw Doubt(path: path, errno: error) }
                guard let identity, !known.contains(identity), let image = try description(of: path),
                    let backing = image.backing,
                    case .present(let backingPath) = backing.state, let file = FileIdentity(ofFileAt: backingPath),
                    let named = files[file]
                else { continue }
                return (path, named)
            }
        }
        return nil
    }

    /// nil where it is no image.
    private static func description(of path: String) throws(Doubt) -> ImageDescription? {
        do throws(ImageReadError) { return try ImageDescription(reading: path) } catch {
            if case .file(.cannotOpen(_, let errno)) = error, errno == .ioError { throw Doubt(path: path, errno: errno) }
            if case .file(.cannotRead(_, let errno)) = error { throw Doubt(path: path, errno: errno) }
            return nil
        }
    }
}
