/// The incompatible feature bits of an image: a program that does not know one of them must not open the image, not
/// even to read it.
public struct QEDFeatures: OptionSet, Sendable, Hashable {
    public let rawValue: UInt64

    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// The image has a backing file, and the header says where its name is.
    public static let backingFile = QEDFeatures(rawValue: 0x1)
    /// A crash may have left the tables inconsistent: check them before use.
    public static let needCheck = QEDFeatures(rawValue: 0x2)
    /// The backing file is raw, whatever its contents look like. Means nothing without `backingFile`.
    public static let backingFormatNoProbe = QEDFeatures(rawValue: 0x4)

    /// The bits this implementation knows.
    public static let known: QEDFeatures = [.backingFile, .needCheck, .backingFormatNoProbe]

    /// The bits that are set and not known.
    public var unknownBits: UInt64 { rawValue & ~Self.known.rawValue }
}

/// The autoclear bits: whoever opens the image for writing and does not know one of them clears it, durably and before
/// anything else, and so tells that what the bit stood for has been passed over.
public struct QEDAutoclearFeatures: OptionSet, Sendable, Hashable {
    public let rawValue: UInt64

    public init(rawValue: UInt64) {
        self.rawValue = rawValue
    }

    /// Besides the file there is a log, in memory that outlives the server, of table entries that are not in the file yet.
    /// Set together with `QEDFeatures.needCheck`. The format defines no autoclear bit; this one is ours, from the end at
    /// which nobody is likely to begin.
    public static let mappingLog = QEDAutoclearFeatures(rawValue: 1 << 63)

    /// What files above it have is being copied into the image, or was, and that did not come to its end: those of them that
    /// lie over it read as they did only beneath the uppermost. Ours, too.
    public static let unfinishedMerge = QEDAutoclearFeatures(rawValue: 1 << 62)

    /// The image has nothing but what lies beneath it as well: each of its clusters was read from there and kept, so that it
    /// may lose any of them. Ours, too.
    public static let keptReads = QEDAutoclearFeatures(rawValue: 1 << 61)
}
