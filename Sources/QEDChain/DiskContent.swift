import BlockStorage
import QEDEngine
import QEDFormat

/// A few bytes of a disk, looked up in the files of its chain: without an engine, and without locks of its own.
public enum DiskContent {
    /// Blocks. Time and memory are bounded whatever the files hold: the tables are asked for one entry each.
    /// - Parameters:
    ///   - chain: the image first; what has been acknowledged and is only in an engine's memory is not seen.
    ///   - range: of the device, within 4096 bytes from a multiple of that.
    /// - Returns: nil where it cannot be told: an entry is damaged, or the chain was opened without the backing file that
    ///   holds the bytes.
    public static func bytes(_ range: Range<UInt64>, of chain: [LayerFile]) throws(ImageFileError) -> [UInt8]? {
        precondition(
            !range.isEmpty && (range.lowerBound ^ (range.upperBound - 1)) >> 12 == 0, "a range in several clusters")
        let count = Int(range.upperBound - range.lowerBound)
        let zeros = [UInt8](repeating: 0, count: count)
        for link in chain {
            switch link.layer {
            case .raw:
                let found = try link.source.readBytes(fileOffset: range.lowerBound, byteCount: count)
                return found + zeros.dropFirst(found.count)
            case .qed(let header, let fileSizeBytes):
                guard range.lowerBound < header.imageSizeBytes else { return zeros }
                let bounds = TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes)
                switch try entry(ofDeviceOffset: range.lowerBound, in: link.file, header, bounds) {
                case .unallocated:
                    if header.backingFileNameRange == nil { return zeros }
                case .zero: return zeros
                case .invalid: return nil
                case .allocated(let clusterFileOffset):
                    let offset = clusterFileOffset + (range.lowerBound & header.geometry.clusterMask)
                    let found = try link.file.readBytes(fileOffset: offset, byteCount: count)
                    return found + zeros.dropFirst(found.count)
                }
            }
        }
        return nil
    }

    private static func entry(
        ofDeviceOffset deviceOffset: UInt64, in file: ImageFile, _ header: QEDHeader, _ bounds: TableEntryBounds
    ) throws(ImageFileError) -> L2Entry {
        let geometry = header.geometry
        let l1Offset = header.l1TableFileOffset + UInt64(geometry.l1Index(ofDeviceOffset: deviceOffset)) * 8
        switch bounds.l1Entry(try value(at: l1Offset, in: file)) {
        case .unallocated: return .unallocated
        case .invalid(let reason): return .invalid(reason)
        case .allocated(let table):
            return bounds.l2Entry(
                try value(at: table + UInt64(geometry.l2Index(ofDeviceOffset: deviceOffset)) * 8, in: file))
        }
    }

    /// An entry of a table. What a file lacks reads as zeros.
    private static func value(at fileOffset: UInt64, in file: ImageFile) throws(ImageFileError) -> UInt64 {
        try file.readBytes(fileOffset: fileOffset, byteCount: 8).enumerated().reduce(0) { value, byte in
            value | UInt64(byte.element) << UInt64(byte.offset * 8)
        }
    }
}
