import BlockStorage
import QEDChain
import QEDEngine

/// What the beginning of a disk says of the blocks that its partition table was made for.
///
/// A GUID partition table counts in blocks, and its header lies in the second one: so a table says of itself for which size
/// of blocks it is. Others (MBR) do not. The bytes are compared and nothing else: whoever made the image chooses between two
/// sizes of blocks.
public enum PartitionTable: Equatable, Sendable {
    case gpt(blockSizeBytes: Int)
    /// None, or one that does not say.
    case other
    /// It would be in a backing file that was not opened, or cannot be read.
    case unknown

    static let gptSignature = Array("EFI PART".utf8)

    /// Reads it. Blocks.
    /// - Parameter chain: the image first; the files behind it as far as they were opened.
    public init(of chain: [LayerFile]) {
        self = .other
        // The smaller first: the other's place is inside the table there, which may hold anything.
        for blockSizeBytes in ServerConfiguration.blockSizes {
            let start = UInt64(blockSizeBytes)
            do throws(ImageFileError) {
                let range = start..<start + UInt64(PartitionTable.gptSignature.count)
                guard let bytes = try DiskContent.bytes(range, of: chain) else {
                    self = .unknown
                    return
                }
                if bytes == PartitionTable.gptSignature {
                    self = .gpt(blockSizeBytes: blockSizeBytes)
                    return
                }
            } catch {
                self = .unknown
                return
            }
        }
    }
}
