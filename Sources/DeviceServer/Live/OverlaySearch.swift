import BlockStorage
import Glibc
import Platform
import QEDChain

/// Looks for images that lie over files which are about to change: no lock tells of one that nobody has open.
///
/// Where it is likely: in the directories of those files. An overlay somewhere else is found only when it is open.
struct OverlaySearch {
    /// So many files of a directory are looked at.
    private static let fileLimit = 100_000

    /// - Parameters:
    ///   - files: that are about to change.
    ///   - known: those of the chain itself: they may lie over each other.
    ///   - directories: to look in.
    /// - Returns: the path of an image that names one of the files as its backing file, and that file's.
    static func overlay(
        of files: [FileIdentity: String], besides known: Set<FileIdentity>, in directories: Set<String>
    ) -> (overlay: String, file: String)? {
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
                guard let identity = FileIdentity(ofFileAt: path), !known.contains(identity),
                    let image = try? ImageDescription(reading: path), let backing = image.backing,
                    case .present(let backingPath) = backing.state, let file = FileIdentity(ofFileAt: backingPath),
                    let named = files[file]
                else { continue }
                return (path, named)
            }
        }
        return nil
    }
}
