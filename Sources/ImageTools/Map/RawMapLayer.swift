import BlockStorage
import QEDFormat

/// A raw file: data, and the holes that its file system knows of; where that is not always right, all of it is data.
final class RawMapLayer: MapLayer {
    let sizeBytes: UInt64
    private let source: any LayerSource

    init(_ source: any LayerSource) throws(ImageToolError) {
        self.source = source
        let sector = QEDLimits.sectorSizeBytes
        sizeBytes = (source.sizeBytes + sector - 1) / sector * sector
    }

    func piece(at start: UInt64, length: UInt64) throws(ImageToolError) -> MapPiece {
        guard source.tellsHolesTruly, let data = source.nextData(from: start) else {
            return MapPiece(kind: .data, length: length, fileOffset: start)
        }
        guard !data.isEmpty else { return MapPiece(kind: .zero, length: length, fileOffset: start) }
        // A hole may begin in the middle of a sector, which is data then.
        let sector = QEDLimits.sectorSizeBytes
        let dataStart = data.lowerBound / sector * sector
        if dataStart > start {
            return MapPiece(kind: .zero, length: min(length, dataStart - start), fileOffset: start)
        }
        let dataEnd = max((data.upperBound + sector - 1) / sector * sector, start + sector)
        return MapPiece(kind: .data, length: min(length, dataEnd - start), fileOffset: start)
    }
}
