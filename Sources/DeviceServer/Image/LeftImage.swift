import BlockStorage

/// An image whose server died, and whose device is not to be served again.
enum LeftImage {
    /// Brings what the dead server had answered into the image, makes it durable and marks the image as clean.
    /// - Throws: why it cannot be done: another file is in its place, the image is in use, damaged, or that data is lost. It is
    ///   left as it is then.
    /// - Parameters:
    ///   - record: of its device.
    ///   - backing: for the files that the image names.
    ///   - tell: is called with a sentence where a failed sync has lost what was answered.
    /// - Returns: how it is left.
    static func complete(
        _ record: DeviceRecord, backing: BackingPolicy, tell: (String) -> Void
    ) throws(ServerError) -> ImageMark? {
        var configuration = ServerConfiguration(imagePath: record.imagePath)
        configuration.backing = backing
        // Nobody goes on using the device: who has written to an image that was left well may have done so.
        var record = record
        record.leftImage = nil
        let session = try ImageSession(configuration, continuing: record)
        if let loss = session.loss { tell(loss) }
        return try session.close()
    }
}
