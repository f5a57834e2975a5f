import BlockStorage
import QEDFormat

/// In which blocks a device is accessed, and how its image's file is; and why.
///
/// Blocks of 512 bytes unless somebody asks for others, since what is on a disk may count in its blocks: the same image has the
/// same partitions whatever file system it lies on. Where direct I/O takes only larger pieces than the device's blocks, the
/// file is accessed through the page cache: the kernel then changes parts of those pieces, beside requests for other parts, as
/// it does for a loop device.
public struct BlockChoice: Equatable, Sendable, CustomStringConvertible {
    public let blockSizeBytes: Int
    /// Whether the image's file is accessed past the page cache.
    public let isDirect: Bool
    /// Why these blocks: what completes "blocks of 512 bytes: …".
    public let blockReason: String
    /// Why that access: what completes "buffered: …".
    public let accessReason: String

    /// - Parameters:
    ///   - wantedBytes: what the user asks for, one of `ServerConfiguration.blockSizes`.
    ///   - imageSizeBytes: of the disk; a multiple of 512.
    ///   - partitionTable: is not read where the user has asked for blocks: it may be far away.
    ///   - directBytes: what offsets and lengths of direct I/O on the file must be multiples of; nil where there is none.
    /// - Throws: where the image does not consist of the blocks that are asked for.
    public init(
        wantedBytes: Int?, imageSizeBytes: UInt64, partitionTable: @autoclosure () -> PartitionTable, directBytes: Int?
    ) throws(BlockSizeError) {
        let isWhole = { (bytes: Int) in imageSizeBytes % UInt64(bytes) == 0 }
        let smallest = Int(QEDLimits.sectorSizeBytes)
        precondition(isWhole(smallest), "an image of parts of sectors")
        if let wantedBytes {
            guard isWhole(wantedBytes) else {
                throw BlockSizeError(blockSizeBytes: wantedBytes, imageSizeBytes: imageSizeBytes)
            }
            self.init(wantedBytes, "asked for with --block-size", directBytes: directBytes, imageSizeBytes)
            return
        }
        switch partitionTable() {
        case .gpt(let bytes) where bytes != smallest && isWhole(bytes):
            self.init(bytes, "the image's partition table was made for them", directBytes: directBytes, imageSizeBytes)
        case .gpt(let bytes) where bytes != smallest:
            self.init(
                smallest, "its partition table was made for blocks of \(bytes), but its size is no multiple of that",
                directBytes: directBytes, imageSizeBytes)
        case .gpt, .other:
            self.init(smallest, "the usual size", directBytes: directBytes, imageSizeBytes)
        case .unknown:
            self.init(
                smallest, "the usual size; whether the partition table asks for another was not read",
                directBytes: directBytes, imageSizeBytes)
        }
    }

    /// The blocks of a device that exists. Its image fits them: it is as long as when the device was made.
    public init(ofDeviceWithBlocksOf blockSizeBytes: Int, imageSizeBytes: UInt64, directBytes: Int?) {
        self.init(blockSizeBytes, "the device was made with them", directBytes: directBytes, imageSizeBytes)
    }

    /// "blocks of 512 bytes (the usual size), the file direct (past the page cache)"
    public var description: String {
        "blocks of \(blockSizeBytes) bytes (\(blockReason)), "
            + "the image's file \(isDirect ? "direct" : "buffered") (\(accessReason))"
    }

    private init(_ blockSizeBytes: Int, _ blockReason: String, directBytes: Int?, _ imageSizeBytes: UInt64) {
        self.blockSizeBytes = blockSizeBytes
        self.blockReason = blockReason
        guard let directBytes else {
            isDirect = false
            accessReason = "its file system has no direct I/O"
            return
        }
        isDirect = blockSizeBytes % directBytes == 0
        let largest = ServerConfiguration.blockSizes.last ?? blockSizeBytes
        if isDirect {
            accessReason = "past the page cache"
        } else if largest % directBytes == 0 && imageSizeBytes % UInt64(largest) == 0 {
            accessReason = "direct I/O on its file takes multiples of \(directBytes) bytes, so only with --block-size \(largest)"
        } else {
            accessReason = "direct I/O on its file takes multiples of \(directBytes) bytes"
        }
    }
}

/// An image does not consist of blocks of the size that is asked for.
public struct BlockSizeError: Error, Equatable, CustomStringConvertible {
    public let blockSizeBytes: Int
    public let imageSizeBytes: UInt64

    public var description: String {
        "its size, \(imageSizeBytes) bytes, is no multiple of the block size \(blockSizeBytes); "
            + "resize it, or leave --block-size out"
    }
}
