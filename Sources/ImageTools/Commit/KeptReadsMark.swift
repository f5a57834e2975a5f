import BlockStorage
import Platform
import QEDChain
import QEDFormat

/// The mark of an image that has nothing but what was read from beneath it and kept: it may lose any of that
/// (`QEDAutoclearFeatures.keptReads`). Whoever opens the image to write something else to it takes the mark away.
public enum KeptReadsMark {
    /// Marks an image that has nothing yet. Blocks until that is durable.
    /// - Parameter file: to be written; nobody else changes it.
    /// - Returns: false: the image has something, and nobody knows what; nothing was changed.
    public static func put(onEmpty file: ImageFile) throws(ImageToolError) -> Bool {
        let isEmpty = Lock(true)
        try ImageStructure.change(file, path: file.path) { structure in
            guard try await structure.readL1().allSatisfy({ $0 == 0 }) else { return isEmpty.withLock { $0 = false } }
            // What other bits stand for is stale from now on.
            structure.header.clearAutoclearFeatures()
            structure.header.hasOnlyKeptReads = true
            try await structure.writeHeader()
            try await structure.storage.sync()
        }
        return isEmpty.withLock { $0 }
    }
}
