import BlockStorage
import Glibc
import QEDFormat
import SystemPackage

/// A raw file: data, and the holes that its file system knows of; where that is not always right, all of it is data.
final class RawMapLayer: MapLayer {
    let sizeBytes: UInt64
    private let file: ImageFile

    init(file: ImageFile) throws(ImageToolError) {
        self.file = file
        let sector = QEDLimits.sectorSizeBytes
        sizeBytes = (file.sizeBytes + sector - 1) / sector * sector
    }

    func piece(at start: UInt64, length: UInt64) throws(ImageToolError) -> MapPiece {
        guard file.tellsHolesTruly else { return MapPiece(kind: .data, length: length, fileOffset: start) }
        let data = lseek(file.descriptor, off_t(start), RawMapLayer.seekData)
        if data < 0 {
            // ENXIO: nothing but a hole up to the end. Anything else: it cannot be known, so it is data.
            return MapPiece(kind: errno == ENXIO ? .zero : .data, length: length, fileOffset: start)
        }
        // A hole may begin in the middle of a sector, which is data then.
        let sector = QEDLimits.sectorSizeBytes
        let dataStart = UInt64(data) / sector * sector
        if dataStart > start {
            return MapPiece(kind: .zero, length: min(length, dataStart - start), fileOffset: start)
        }
        let hole = lseek(file.descriptor, off_t(start), RawMapLayer.seekHole)
        let holeStart = hole <= 0 ? start + length : (UInt64(hole) + sector - 1) / sector * sector
        return MapPiece(kind: .data, length: min(length, max(holeStart, start + sector) - start), fileOffset: start)
    }

    private static let seekData: Int32 = 3
    private static let seekHole: Int32 = 4
}
