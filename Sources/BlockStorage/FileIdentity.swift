import Glibc

extension ImageFile.Identity {
    /// What the path names now, symbolic links followed; nil where there is nothing. The file is not opened.
    public init?(ofFileAt path: String) {
        var status = stat()
        guard stat(path, &status) == 0 else { return nil }
        self.init(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    }
}
