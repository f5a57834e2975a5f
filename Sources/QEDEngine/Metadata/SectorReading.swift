import BlockStorage
import QEDFormat
import SystemPackage

extension BaseStorage {
    /// Reads whole sectors of an image: of the file's last one up to 511 bytes may be missing, and count as zeros.
    /// - Throws: an `ioError` where more is missing.
    package func readSectors(
        into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        let count = try await read(into: buffer, byteCount: byteCount, fileOffset: fileOffset)
        if count == byteCount { return }
        guard byteCount - count < Int(QEDLimits.sectorSizeBytes) else {
            throw StorageError(.read, fileOffset: fileOffset, byteCount: UInt64(byteCount), errno: .ioError)
        }
        (buffer + count).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - count)
    }
}
