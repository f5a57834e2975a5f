import BlockStorage
import Platform
import QEDEngine
import QEDFormat

/// Where a server keeps the mapping log of its image: a file on a tmpfs, named for the file's identity, so that whoever
/// serves the image next finds it.
public enum SessionLogPath {
    public static func path(inDirectory directory: String, image: FileIdentity) -> String {
        "\(directory)/image-\(image).log"
    }

    /// Whether a file of that name in the directory is a log.
    public static func isLog(_ name: String) -> Bool { name.hasPrefix("image-") && name.hasSuffix(".log") }
}

extension ImageFile {
    /// Whether it is an image with an unfinished session: nothing may change it or take its place. What is no image has none.
    public func isUnfinishedImage() throws(ImageFileError) -> Bool {
        guard !isBlockDevice else { return false }
        let header: QEDHeader
        do throws(ImageReadError) { header = try ImageHeader(reading: self).header } catch {
            guard case .file(let error) = error else { return false }
            throw error
        }
        return try hasUnfinishedSession(header)
    }

    /// Whether a server of this image died and left changes that only its log has, or nobody can tell. Who changes the image
    /// without that log would lose what the server had acknowledged.
    public func hasUnfinishedSession(_ header: QEDHeader) throws(ImageFileError) -> Bool {
        guard header.needsCheck && header.hasMappingLog else { return false }
        let start = try readBytes(byteCount: Int(QEDLimits.sectorSizeBytes))
        guard start.count == QEDLimits.sectorSizeBytes else { return true }
        // Without a note, or without knowing which boot this is, nobody can tell a log elsewhere from a power cut.
        guard let boot = BootIdentity.current, let note = start.withUnsafeBytes({ SessionNote(in: $0, of: header) })
        else { return true }
        return note.boot == boot
    }
}
