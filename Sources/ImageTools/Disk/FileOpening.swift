import BlockStorage
import QEDChain
import QEDEngine

extension ImageFile {
    /// Opens a file for a tool: through the page cache unless told otherwise, with the lock that goes with the access.
    /// - Parameters:
    ///   - sharing: takes no lock, to read beside a program that may be changing the file.
    ///   - discardsLostSession: open for writing even an image whose dead server has left a log: see `ImageOptions`.
    ///   - policy: where an image names the file.
    static func openedForTool(
        _ path: String, _ access: Access, sharing: Bool, allowBlockDevice: Bool, caching: Caching = .buffered,
        discardsLostSession: Bool = false, policy: BackingPolicy? = nil
    ) throws(ImageToolError) -> ImageFile {
        let lock: FileLock? = sharing ? nil : access == .readWrite ? .writable : .readOnly
        let isChange = access == .readWrite && !discardsLostSession
        let file: ImageFile
        let isUnfinished: Bool
        do throws(ImageFileError) {
            file = try ImageFile(
                path: path, access: access, caching: caching, lock: lock, allowBlockDevice: allowBlockDevice,
                policy: policy)
            isUnfinished = try isChange ? file.isUnfinishedImage() : false
        } catch {
            throw .read(.file(error))
        }
        guard !isUnfinished else { throw .open(path: path, .unfinishedSession) }
        return file
    }
}
