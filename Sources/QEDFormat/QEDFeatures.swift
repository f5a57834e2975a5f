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
