/// The header of an image. Every value of this type satisfies every rule of the format for its fields, except that the
/// file may have shrunk since it was read.
public struct QEDHeader: Sendable, Hashable {
    /// Cluster and table size.
    public let geometry: QEDGeometry
    /// Clusters in the header area; at least 1.
    public let headerSizeClusters: UInt64
    /// The incompatible features, all of them known.
    public private(set) var features: QEDFeatures
    /// Compatible feature bits: none is defined, unknown ones are ignored and preserved.
    public let compatFeatures: UInt64
    /// Autoclear feature bits as they are in the file. See ``hasAutoclearFeatures(except:)``.
    public private(set) var autoclearFeatures: UInt64
    /// File offset of the L1 table: a multiple of the cluster size, behind the header area.
    public let l1TableFileOffset: UInt64
    /// Size of the device that the image holds: a multiple of 512, at most the geometry's maximum, possibly 0.
    public private(set) var imageSizeBytes: UInt64

    /// The two fields about the backing file's name as they are in the file: meaningless, but preserved, if the image
    /// has no backing file.
    private var backingFileNameOffsetField: UInt32
    private var backingFileNameSizeField: UInt32

    /// Checks `fields` in the order in which QEMU does, so that both blame the same field of an image with several
    /// faults.
    init(checking fields: HeaderFields, fileSizeBytes: UInt64) throws(QEDFormatError) {
        guard fields.magic == HeaderFields.magicNumber else { throw .notQED }

        features = QEDFeatures(rawValue: fields.features)
        guard features.unknownBits == 0 else { throw .unsupportedFeatures(unknownBits: features.unknownBits) }

        geometry = try QEDGeometry(
            clusterSizeBytes: UInt64(fields.clusterSize), tableSizeClusters: UInt64(fields.tableSize))

        imageSizeBytes = fields.imageSize
        try Self.checkImageSize(imageSizeBytes, geometry: geometry)

        // At most 2^32 clusters of 2^26 bytes: no overflow in 64 bits.
        let headerAreaSizeBytes = UInt64(fields.headerSize) * geometry.clusterSizeBytes
        l1TableFileOffset = fields.l1TableOffset
        try Self.checkL1Table(
            fileOffset: l1TableFileOffset, geometry: geometry, headerAreaSizeBytes: headerAreaSizeBytes,
            fileSizeBytes: fileSizeBytes)

        headerSizeClusters = UInt64(fields.headerSize)
        guard headerSizeClusters > 0, headerAreaSizeBytes <= QEDLimits.maximumHeaderAreaSizeBytes
        else { throw .invalidHeaderSize(clusters: headerSizeClusters, clusterSizeBytes: geometry.clusterSizeBytes) }

        backingFileNameOffsetField = fields.backingFileNameOffset
        backingFileNameSizeField = fields.backingFileNameSize
        if features.contains(.backingFile) {
            try Self.checkBackingFileNameRange(
                fileOffset: UInt64(fields.backingFileNameOffset), sizeBytes: UInt64(fields.backingFileNameSize),
                headerAreaSizeBytes: headerAreaSizeBytes)
        }

        compatFeatures = fields.compatFeatures
        autoclearFeatures = fields.autoclearFeatures
    }

    private var fields: HeaderFields {
        HeaderFields(
            magic: HeaderFields.magicNumber,
            clusterSize: UInt32(truncatingIfNeeded: geometry.clusterSizeBytes),
            tableSize: UInt32(truncatingIfNeeded: geometry.tableSizeClusters),
            headerSize: UInt32(truncatingIfNeeded: headerSizeClusters),
            features: features.rawValue,
            compatFeatures: compatFeatures,
            autoclearFeatures: autoclearFeatures,
            l1TableOffset: l1TableFileOffset,
            imageSize: imageSizeBytes,
            backingFileNameOffset: backingFileNameOffsetField,
            backingFileNameSize: backingFileNameSizeField)
    }
}

// MARK: - Bytes

extension QEDHeader {
    /// Reads and checks a header.
    ///
    /// - Parameters:
    ///   - bytes: the start of the file, 64 bytes or more; fewer only if the file has no more. Bytes after the first
    ///     64 are not looked at.
    ///   - fileSizeBytes: length of the file, to which the L1 table is compared.
    public init(parsing bytes: RawSpan, fileSizeBytes: UInt64) throws(QEDFormatError) {
        guard bytes.byteCount >= QEDLimits.headerSizeBytes else {
            let startsWithMagic = bytes.withUnsafeBytes { $0.starts(with: [0x51, 0x45, 0x44, 0x00]) }
            throw startsWithMagic ? .headerTruncated(fileSizeBytes: UInt64(bytes.byteCount)) : .notQED
        }
        try self.init(checking: HeaderFields(decoding: bytes), fileSizeBytes: fileSizeBytes)
    }

    /// Reads and checks a header held in an array.
    public init(parsing bytes: [UInt8], fileSizeBytes: UInt64) throws(QEDFormatError) {
        try self.init(parsing: bytes.span.bytes, fileSizeBytes: fileSizeBytes)
    }

    /// The 64 bytes of the header. What is read and encoded again is the same to the byte.
    public func encoded() -> [UInt8] {
        fields.encoded()
    }
}

// MARK: - A new image

extension QEDHeader {
    /// The header of a new image: the L1 table follows the header area at once, and a backing file's name follows the
    /// 64 bytes of the header.
    ///
    /// - Parameter backingFile: the name exactly as it is to be stored, and whether the file is raw (otherwise QED).
    /// - Throws: the same errors as reading such a header would.
    public init(
        newImageOfSizeBytes imageSizeBytes: UInt64, geometry: QEDGeometry, headerSizeClusters: UInt32 = 1,
        backingFile: (name: BackingFileName, isRaw: Bool)? = nil
    ) throws(QEDFormatError) {
        var features: QEDFeatures = []
        if let backingFile {
            features = backingFile.isRaw ? [.backingFile, .backingFormatNoProbe] : [.backingFile]
        }
        let headerAreaSizeBytes = UInt64(headerSizeClusters) * geometry.clusterSizeBytes
        let fields = HeaderFields(
            magic: HeaderFields.magicNumber,
            clusterSize: UInt32(truncatingIfNeeded: geometry.clusterSizeBytes),
            tableSize: UInt32(truncatingIfNeeded: geometry.tableSizeClusters),
            headerSize: headerSizeClusters,
            features: features.rawValue,
            compatFeatures: 0,
            autoclearFeatures: 0,
            l1TableOffset: headerAreaSizeBytes,
            imageSize: imageSizeBytes,
            backingFileNameOffset: backingFile == nil ? 0 : UInt32(QEDLimits.headerSizeBytes),
            backingFileNameSize: UInt32(truncatingIfNeeded: backingFile?.name.bytes.count ?? 0))
        try self.init(checking: fields, fileSizeBytes: headerAreaSizeBytes + geometry.tableSizeBytes)
    }
}

// MARK: - What the fields mean

extension QEDHeader {
    /// Bytes of the header area, which no table and no data cluster may touch.
    public var headerAreaSizeBytes: UInt64 { headerSizeClusters * geometry.clusterSizeBytes }

    /// Whether the tables have to be checked before they are trusted.
    public var needsCheck: Bool {
        get { features.contains(.needCheck) }
        set {
            if newValue { features.insert(.needCheck) } else { features.remove(.needCheck) }
        }
    }

    /// Whether autoclear bits are set besides those that the caller keeps true. They must be cleared, and the header be
    /// durable, before anything else in the image is changed; an image that is only read keeps them.
    public func hasAutoclearFeatures(except kept: QEDAutoclearFeatures = []) -> Bool {
        autoclearFeatures & ~kept.rawValue != 0
    }

    /// Clears the autoclear bits but those that the caller keeps true.
    public mutating func clearAutoclearFeatures(except kept: QEDAutoclearFeatures = []) {
        autoclearFeatures &= kept.rawValue
    }

    /// Whether the last program that had the image open for writing had a mapping log.
    public var hasMappingLog: Bool { autoclearFeatures & QEDAutoclearFeatures.mappingLog.rawValue != 0 }

    /// See `QEDAutoclearFeatures.unfinishedMerge`.
    public var hasUnfinishedMerge: Bool {
        get { autoclearFeatures & QEDAutoclearFeatures.unfinishedMerge.rawValue != 0 }
        set { set(.unfinishedMerge, newValue) }
    }

    /// See `QEDAutoclearFeatures.keptReads`.
    public var hasOnlyKeptReads: Bool {
        get { autoclearFeatures & QEDAutoclearFeatures.keptReads.rawValue != 0 }
        set { set(.keptReads, newValue) }
    }

    private mutating func set(_ feature: QEDAutoclearFeatures, _ isSet: Bool) {
        let bit = feature.rawValue
        autoclearFeatures = isSet ? autoclearFeatures | bit : autoclearFeatures & ~bit
    }

    /// Gives the image another size. The caller scrubs what a growing image would expose.
    public mutating func setImageSize(bytes: UInt64) throws(QEDFormatError) {
        try Self.checkImageSize(bytes, geometry: geometry)
        imageSizeBytes = bytes
    }

    /// Where the backing file's name lies, or nil if the image has no backing file. Within the header area, not empty,
    /// behind the 64 bytes of the header.
    public var backingFileNameRange: BackingFileNameRange? {
        guard features.contains(.backingFile) else { return nil }
        return BackingFileNameRange(
            fileOffset: UInt64(backingFileNameOffsetField), sizeBytes: Int(backingFileNameSizeField))
    }

    /// Where that many zeros of the header area lie that are nobody's: not the header's, nor the name's that it points at.
    /// - Parameters:
    ///   - area: the beginning of the file, as far as it is looked at.
    ///   - reserved: offsets that are left free.
    /// - Returns: an offset from the start of the file; nil where there is no such place.
    package func unusedSpace(
        for byteCount: Int, in area: UnsafeRawBufferPointer, besides reserved: Range<Int> = 0..<0
    ) -> Int? {
        let name = backingFileNameRange.map { Int($0.fileOffset)..<Int($0.endFileOffset) } ?? 0..<0
        var start = Int(QEDLimits.headerSizeBytes)
        for position in start..<max(area.count, start) {
            if area[position] != 0 || name.contains(position) || reserved.contains(position) { start = position + 1 }
            if position + 1 - start == byteCount { return start }
        }
        return nil
    }

    /// Points the image at a backing file whose name the caller has put, or will put, into the header area.
    /// - Throws: the same errors as reading such a header would; the header is as it was then.
    public mutating func setBackingFile(
        nameAt fileOffset: UInt64, sizeBytes: Int, isRaw: Bool
    ) throws(QEDFormatError) {
        try Self.checkBackingFileNameRange(
            fileOffset: fileOffset, sizeBytes: UInt64(sizeBytes), headerAreaSizeBytes: headerAreaSizeBytes)
        backingFileNameOffsetField = UInt32(truncatingIfNeeded: fileOffset)
        backingFileNameSizeField = UInt32(truncatingIfNeeded: sizeBytes)
        features.insert(.backingFile)
        if isRaw { features.insert(.backingFormatNoProbe) } else { features.remove(.backingFormatNoProbe) }
    }

    /// Makes the image one without a backing file. The name's bytes, which nothing points at any more, are the
    /// caller's.
    public mutating func removeBackingFile() {
        backingFileNameOffsetField = 0
        backingFileNameSizeField = 0
        features.subtract([.backingFile, .backingFormatNoProbe])
    }

    /// Whether the backing file is raw by declaration. If not, the header does not tell its format.
    public var backingFileIsRaw: Bool { features.isSuperset(of: [.backingFile, .backingFormatNoProbe]) }
}

// MARK: - Rules

extension QEDHeader {
    private static func checkImageSize(_ bytes: UInt64, geometry: QEDGeometry) throws(QEDFormatError) {
        guard bytes % QEDLimits.sectorSizeBytes == 0 else { throw .imageSizeNotMultipleOf512(bytes: bytes) }
        guard bytes <= geometry.maximumImageSizeBytes
        else { throw .imageSizeTooLarge(bytes: bytes, maximumBytes: geometry.maximumImageSizeBytes) }
    }

    private static func checkL1Table(
        fileOffset: UInt64, geometry: QEDGeometry, headerAreaSizeBytes: UInt64, fileSizeBytes: UInt64
    ) throws(QEDFormatError) {
        guard fileOffset & geometry.clusterMask == 0
        else { throw .l1TableUnaligned(fileOffset: fileOffset, clusterSizeBytes: geometry.clusterSizeBytes) }
        guard fileOffset >= headerAreaSizeBytes
        else { throw .l1TableInHeaderArea(fileOffset: fileOffset, headerAreaSizeBytes: headerAreaSizeBytes) }
        let (endOffset, overflow) = fileOffset.addingReportingOverflow(geometry.tableSizeBytes)
        guard !overflow, endOffset <= fileSizeBytes else {
            throw .l1TablePastEndOfFile(
                fileOffset: fileOffset, tableSizeBytes: geometry.tableSizeBytes, fileSizeBytes: fileSizeBytes)
        }
    }

    private static func checkBackingFileNameRange(
        fileOffset: UInt64, sizeBytes: UInt64, headerAreaSizeBytes: UInt64
    ) throws(QEDFormatError) {
        guard fileOffset + sizeBytes <= headerAreaSizeBytes else {
            throw .backingFileNameOutsideHeaderArea(
                fileOffset: fileOffset, sizeBytes: sizeBytes, headerAreaSizeBytes: headerAreaSizeBytes)
        }
        guard sizeBytes > 0 else { throw .backingFileNameEmpty }
        guard sizeBytes <= UInt64(QEDLimits.maximumBackingFileNameSizeBytes)
        else { throw .backingFileNameTooLong(sizeBytes: sizeBytes) }
        guard fileOffset >= UInt64(QEDLimits.headerSizeBytes)
        else { throw .backingFileNameOverlapsHeader(fileOffset: fileOffset) }
    }
}
