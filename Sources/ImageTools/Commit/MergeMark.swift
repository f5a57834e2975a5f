import BlockStorage
import QEDChain
import QEDFormat

/// The mark of a file into which others that lie over it are being copied: from before anything can be seen of that until nobody
/// names those any more (`QEDAutoclearFeatures.unfinishedMerge`). Whoever would read them by themselves can be told.
public enum MergeMark {
    /// Blocks until it is durable.
    /// - Parameter file: to be written; nobody else changes it.
    public static func put(on file: ImageFile) throws(ImageToolError) { try set(file, true) }

    /// The same: it is gone.
    public static func remove(from file: ImageFile) throws(ImageToolError) { try set(file, false) }

    private static func set(_ file: ImageFile, _ isMarked: Bool) throws(ImageToolError) {
        try ImageStructure.change(file, path: file.path) { structure in
            guard structure.header.hasUnfinishedMerge != isMarked else { return }
            structure.header.hasUnfinishedMerge = isMarked
            try await structure.writeHeader()
            try await structure.storage.sync()
        }
    }
}
