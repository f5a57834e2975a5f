import BlockStorage
import Glibc
import QEDFormat

/// Where a server keeps the mapping log of its image: a file on a tmpfs, named for the image's device and inode, so that
/// whoever serves the image next finds it.
public enum SessionLogPath {
    /// `QED_UBLK_RUNTIME_DIR`, or /run/qed-ublk.
    public static var standardDirectory: String {
        guard let chosen = getenv("QED_UBLK_RUNTIME_DIR"), chosen.pointee != 0 else { return "/run/qed-ublk" }
        return String(cString: chosen)
    }

    public static func path(inDirectory directory: String, image: ImageFile.Identity) -> String {
        "\(directory)/image-\(image.device)-\(image.inode).log"
    }
}

extension ImageFile {
    /// Whether a server of this image died and left changes that only its log has. Who changes the image without that log
    /// would lose what the server had acknowledged.
    public func hasUnfinishedSession(_ header: QEDHeader) -> Bool {
        guard header.needsCheck && header.hasMappingLog else { return false }
        let path = SessionLogPath.path(inDirectory: SessionLogPath.standardDirectory, image: identity)
        return Glibc.access(path, F_OK) == 0
    }
}
