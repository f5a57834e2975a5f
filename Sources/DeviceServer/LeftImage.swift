import BlockStorage

/// An image whose server died, and whose device is not to be served again.
public enum LeftImage {
    /// Brings what the dead server had answered into the image, makes it durable and marks the image as clean.
    /// - Throws: why it cannot be done: the image is in use, damaged, or that data is lost. It is left as it is then.
    /// - Parameter backing: for the files that the image names.
    /// - Returns: how it is left.
    public static func complete(path: String, backing: BackingPolicy) throws(ServerError) -> ImageMark? {
        var configuration = ServerConfiguration(imagePath: path)
        configuration.backing = backing
        return try ImageSession(configuration, continuesSession: true).close()
    }
}
