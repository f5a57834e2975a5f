import BlockStorage

/// A device as `add` is asked for one. What nothing is said of is nil, or false: it is as usual, or as the device that waits
/// has it.
public struct RequestedDevice: Sendable {
    public var id: UInt32?
    public var name: DeviceName?
    public var link: DeviceLink?
    public var scansPartitions: Bool?
    /// Nobody looks at what is on the disk by himself; its partitions are not looked for.
    public var isUntrusted = false
    public var queues: Int?
    public var queueDepth: Int?
    /// Of the device's logical blocks.
    public var blockSizeBytes: Int?
    public var isReadOnly = false
    /// What is written to it goes to an overlay in this directory, which is thrown away with it; nil: to the image.
    public var throwAwayDirectory: String?
    /// It ends with its server.
    public var isUnrecoverable = false
    /// Serve the image even though what a dead server has acknowledged is lost.
    public var discardsLostSession = false
    public var zeroCopy: ZeroCopyChoice?
    /// What is read from the bottom of the chain is kept in the image.
    public var keepsReads = false
    /// How much that may take, about.
    public var keepLimitBytes: UInt64?
    /// Absolute: a file that is told what is read from there, and one that tells what is to be fetched from there.
    public var recordPath: String?
    public var prefetchPath: String?
    /// For the tables of the image and its backing files.
    public var cacheBytes: Int?
    /// Its directories are absolute.
    public var backing = BackingChoice()

    public init() {}

    /// What its server is to do. Holds the directories of `backing` open.
    /// - Parameter imagePath: absolute.
    func configuration(imagePath: String) throws(ImageFileError) -> ServerConfiguration {
        var configuration = ServerConfiguration(imagePath: imagePath)
        if let queues { configuration.queues = queues }
        configuration.blockSizeBytes = blockSizeBytes
        if let queueDepth { configuration.queueDepth = queueDepth }
        configuration.deviceID = id
        configuration.name = name
        configuration.link = link
        configuration.scansPartitions = scansPartitions ?? !isUntrusted
        configuration.isUntrusted = isUntrusted
        configuration.isReadOnly = isReadOnly
        configuration.isThrowAway = throwAwayDirectory != nil
        configuration.isRecoverable = !isUnrecoverable
        configuration.discardsLostSession = discardsLostSession
        if let zeroCopy { configuration.zeroCopy = zeroCopy }
        if let cacheBytes { configuration.cacheBytes = cacheBytes }
        configuration.keepsReads = keepsReads
        configuration.keepLimitBytes = keepLimitBytes
        configuration.recordPath = recordPath
        configuration.prefetchPath = prefetchPath
        configuration.backing = try backing.policy()
        configuration.backingArguments = backing.arguments
        return configuration
    }
}
