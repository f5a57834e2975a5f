import BlockStorage
import QEDEngine

extension ImageFile {
    /// Opens a file for a tool: through the page cache unless told otherwise, with the lock that goes with the access.
    /// - Parameters:
    ///   - sharing: takes no lock, to read beside a program that may be changing the file.
    ///   - policy: where an image names the file.
    static func openedForTool(
        _ path: String, _ access: Access, sharing: Bool, allowBlockDevice: Bool, caching: Caching = .buffered,
        policy: BackingPolicy? = nil
    ) throws(ImageToolError) -> ImageFile {
        let lock: FileLock? = sharing ? nil : access == .readWrite ? .writable : .readOnly
        do throws(ImageFileError) {
            return try ImageFile(
                path: path, access: access, caching: caching, lock: lock, allowBlockDevice: allowBlockDevice,
                policy: policy)
        } catch {
            throw .read(.file(error))
        }
    }
}
