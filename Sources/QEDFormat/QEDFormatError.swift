/// Why bytes are not a QED image that can be used, or why an image cannot be made as asked.
public enum QEDFormatError: Error, Sendable, Hashable {
    /// The file does not start with the magic bytes.
    case notQED
    /// The file starts with the magic bytes and ends before the header does.
    case headerTruncated(fileSizeBytes: UInt64)
    /// Incompatible feature bits that this implementation does not know.
    case unsupportedFeatures(unknownBits: UInt64)
    case invalidClusterSize(bytes: UInt64)
    case invalidTableSize(clusters: UInt64)
    /// The format allows tables of this size, this implementation does not: ``QEDLimits/maximumTableSizeBytes``.
    case tableTooLarge(bytes: UInt64)
    case imageSizeNotMultipleOf512(bytes: UInt64)
    case imageSizeTooLarge(bytes: UInt64, maximumBytes: UInt64)
    case l1TableUnaligned(fileOffset: UInt64, clusterSizeBytes: UInt64)
    case l1TableInHeaderArea(fileOffset: UInt64, headerAreaSizeBytes: UInt64)
    case l1TablePastEndOfFile(fileOffset: UInt64, tableSizeBytes: UInt64, fileSizeBytes: UInt64)
    /// The header area has no cluster, or does not end below 2^32.
    case invalidHeaderSize(clusters: UInt64, clusterSizeBytes: UInt64)
    case backingFileNameOutsideHeaderArea(fileOffset: UInt64, sizeBytes: UInt64, headerAreaSizeBytes: UInt64)
    case backingFileNameOverlapsHeader(fileOffset: UInt64)
    case backingFileNameEmpty
    case backingFileNameTooLong(sizeBytes: UInt64)
    /// `position` counts from the name's first byte.
    case backingFileNameContainsNUL(position: Int)
}

extension QEDFormatError {
    /// The header field that is wrong, or nil if the fault is not in a field of the header.
    public var field: QEDHeaderField? {
        switch self {
        case .notQED: .magic
        case .headerTruncated, .backingFileNameContainsNUL: nil
        case .unsupportedFeatures: .features
        case .invalidClusterSize: .clusterSize
        case .invalidTableSize, .tableTooLarge: .tableSize
        case .imageSizeNotMultipleOf512, .imageSizeTooLarge: .imageSize
        case .l1TableUnaligned, .l1TableInHeaderArea, .l1TablePastEndOfFile: .l1TableOffset
        case .invalidHeaderSize: .headerSize
        case .backingFileNameOutsideHeaderArea, .backingFileNameOverlapsHeader: .backingFileNameOffset
        case .backingFileNameEmpty, .backingFileNameTooLong: .backingFileNameSize
        }
    }
}

extension QEDFormatError: CustomStringConvertible {
    /// The rest of a sentence whose subject, the path of the file, the caller puts in front.
    public var description: String {
        switch self {
        case .notQED:
            "is not a QED image: the file does not start with the QED magic bytes"
        case .headerTruncated(let fileSizeBytes):
            "is not a usable QED image: the file ends after \(fileSizeBytes) bytes, inside its 64-byte header"
        case .unsupportedFeatures(let unknownBits):
            "needs features that this version does not support (bits 0x\(String(unknownBits, radix: 16)) at byte 16)"
        case .tableTooLarge(let bytes):
            "has tables of \(bytes) bytes, and this version supports tables of up to "
                + "\(QEDLimits.maximumTableSizeBytes) bytes: use smaller clusters or fewer clusters per table"
        default:
            "is not a usable QED image: \(fault)" + (field.map { " (header field at byte \($0.fileOffset))" } ?? "")
        }
    }

    /// The fault in one clause, without the file it is in: for messages about an image that does not exist yet.
    public var fault: String {
        switch self {
        case .notQED:
            return "the magic bytes are missing"
        case .headerTruncated(let fileSizeBytes):
            return "the file ends after \(fileSizeBytes) bytes"
        case .unsupportedFeatures(let unknownBits):
            return "the feature bits 0x\(String(unknownBits, radix: 16)) are not known"
        case .invalidClusterSize(let bytes):
            return "the cluster size is \(bytes) bytes, but must be a power of two from "
                + "\(QEDLimits.minimumClusterSizeBytes) to \(QEDLimits.maximumClusterSizeBytes)"
        case .invalidTableSize(let clusters):
            return "the table size is \(clusters) clusters, but must be 1, 2, 4, 8 or 16"
        case .tableTooLarge(let bytes):
            return "the tables have \(bytes) bytes, but must not have more than \(QEDLimits.maximumTableSizeBytes): "
                + "use smaller clusters or fewer clusters per table"
        case .imageSizeNotMultipleOf512(let bytes):
            return "the image size is \(bytes) bytes, but must be a multiple of 512"
        case .imageSizeTooLarge(let bytes, let maximumBytes):
            return "the image size is \(bytes) bytes, but this cluster and table size allow \(maximumBytes) at most"
        case .l1TableUnaligned(let fileOffset, let clusterSizeBytes):
            return "the L1 table is at file offset \(fileOffset), which is not a multiple of the cluster size "
                + "\(clusterSizeBytes)"
        case .l1TableInHeaderArea(let fileOffset, let headerAreaSizeBytes):
            return
                "the L1 table is at file offset \(fileOffset), inside the header area of \(headerAreaSizeBytes) bytes"
        case .l1TablePastEndOfFile(let fileOffset, let tableSizeBytes, let fileSizeBytes):
            return "the L1 table of \(tableSizeBytes) bytes at file offset \(fileOffset) does not fit in the file of "
                + "\(fileSizeBytes) bytes"
        case .invalidHeaderSize(let clusters, let clusterSizeBytes):
            return "the header area is \(clusters) clusters of \(clusterSizeBytes) bytes, but must be at least one "
                + "cluster and less than 4 GiB"
        case .backingFileNameOutsideHeaderArea(let fileOffset, let sizeBytes, let headerAreaSizeBytes):
            return "the backing file name of \(sizeBytes) bytes at file offset \(fileOffset) does not fit in the "
                + "header area of \(headerAreaSizeBytes) bytes"
        case .backingFileNameOverlapsHeader(let fileOffset):
            return "the backing file name at file offset \(fileOffset) overlaps the first 64 bytes, the header itself"
        case .backingFileNameEmpty:
            return "the backing file name is empty"
        case .backingFileNameTooLong(let sizeBytes):
            return "the backing file name has \(sizeBytes) bytes, but must not have more than "
                + "\(QEDLimits.maximumBackingFileNameSizeBytes)"
        case .backingFileNameContainsNUL(let position):
            return "the backing file name has a NUL byte at position \(position)"
        }
    }
}
