import BlockStorage
import CSupport
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// A QED image: its tables, read a piece at a time.
final class QEDMapLayer: MapLayer {
    let sizeBytes: UInt64
    private let file: ImageFile
    private let header: QEDHeader
    private let bounds: TableEntryBounds
    private let l1: [UInt64]
    private var pieceFileOffset: UInt64?
    private var entries: [UInt64] = []
    /// A descriptor of the same file that takes any offset: that of the image may do direct I/O.
    private let reader: Int32

    private static let pieceBytes: UInt64 = 64 << 10

    init(file: ImageFile, header: QEDHeader) throws(ImageToolError) {
        self.file = file
        self.header = header
        sizeBytes = header.imageSizeBytes
        bounds = TableEntryBounds(header: header, fileSizeBytes: file.sizeBytes)
        let count = header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
        let descriptor = cs_open_found(file.descriptor, file.path, 0)
        guard descriptor >= 0 else {
            throw .read(.file(.cannotRead(path: file.path, errno: Errno(rawValue: -descriptor))))
        }
        var isMine = false
        defer { if !isMine { cs_close(descriptor) } }
        l1 = try QEDMapLayer.read(count, at: header.l1TableFileOffset, descriptor, path: file.path)
        reader = descriptor
        isMine = true
    }

    deinit { cs_close(reader) }

    func piece(at start: UInt64, length: UInt64) throws(ImageToolError) -> MapPiece {
        let geometry = header.geometry
        let table: UInt64
        switch bounds.l1Entry(l1[geometry.l1Index(ofDeviceOffset: start)]) {
        case .unallocated:
            let rest = geometry.bytesPerL2Table - (start & (geometry.bytesPerL2Table - 1))
            return MapPiece(kind: .unallocated, length: min(length, rest), fileOffset: nil)
        case .invalid: throw .corruptEntry(path: file.path, deviceOffset: start)
        case .allocated(let tableFileOffset): table = tableFileOffset
        }
        let index = geometry.l2Index(ofDeviceOffset: start)
        let entryOffset = UInt64(index) * 8
        let pieceBytes = min(QEDMapLayer.pieceBytes, geometry.tableSizeBytes)
        let pieceStart = entryOffset / pieceBytes * pieceBytes
        if pieceFileOffset != table + pieceStart {
            pieceFileOffset = nil
            entries = try QEDMapLayer.read(Int(pieceBytes / 8), at: table + pieceStart, reader, path: file.path)
            pieceFileOffset = table + pieceStart
        }

        let first = Int((entryOffset - pieceStart) / 8)
        let inCluster = start & geometry.clusterMask
        let kind = bounds.l2Entry(entries[first])
        var covered = geometry.clusterSizeBytes - inCluster
        var next = first + 1
        while covered < length, next < entries.count, follows(kind, entries[next], clusters: UInt64(next - first)) {
            covered += geometry.clusterSizeBytes
            next += 1
        }
        covered = min(covered, length)
        switch kind {
        case .unallocated: return MapPiece(kind: .unallocated, length: covered, fileOffset: nil)
        case .zero: return MapPiece(kind: .zero, length: covered, fileOffset: nil)
        case .allocated(let fileOffset):
            return MapPiece(kind: .data, length: covered, fileOffset: fileOffset + inCluster)
        case .invalid: throw .corruptEntry(path: file.path, deviceOffset: start)
        }
    }

    private func follows(_ kind: L2Entry, _ value: UInt64, clusters: UInt64) -> Bool {
        switch (kind, bounds.l2Entry(value)) {
        case (.unallocated, .unallocated), (.zero, .zero): true
        case (.allocated(let first), .allocated(let next)): next == first + clusters << header.geometry.clusterShift
        default: false
        }
    }

    /// Bytes that the end of the file cuts off count as zeros.
    private static func read(
        _ count: Int, at fileOffset: UInt64, _ descriptor: Int32, path: String
    ) throws(ImageToolError) -> [UInt64] {
        var values = [UInt64](repeating: 0, count: count)
        let result = values.withUnsafeMutableBytes {
            cs_pread_fully(descriptor, $0.baseAddress, UInt64($0.count), fileOffset)
        }
        guard result >= 0 else { throw .read(.file(.cannotRead(path: path, errno: Errno(rawValue: Int32(-result))))) }
        for index in values.indices { values[index] = UInt64(littleEndian: values[index]) }
        return values
    }
}
