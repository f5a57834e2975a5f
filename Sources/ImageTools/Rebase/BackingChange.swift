import BlockStorage
import QEDEngine
import QEDFormat

extension ImageStructure {
    /// Points the image at another backing file, or at none, durably.
    ///
    /// The new name goes to a part of the header area that nothing uses; when it is durable one sector, the header's,
    /// makes it the name. So a power cut leaves the old name or the new one.
    mutating func setBackingFile(
        _ name: BackingFileName?, isRaw: Bool, path: String
    ) async throws {
        let old = header.backingFileNameRange
        guard name == nil || header.compatFeatures == 0 else {
            throw ImageToolError.refused(
                path: path,
                reason: "has data of another program in its header, which a new backing file name could overwrite")
        }
        var changed = header
        if let name {
            let fileOffset = try await unusedHeaderSpace(byteCount: name.bytes.count, path: path)
            try await storage.writeFully(from: name.bytes, byteCount: name.bytes.count, fileOffset: fileOffset)
            try await storage.sync()
            try changed.setBackingFile(nameAt: fileOffset, sizeBytes: name.bytes.count, isRaw: isRaw)
        } else {
            changed.removeBackingFile()
        }
        header = changed
        try await writeHeader()
        try await storage.sync()
        guard let old else { return }
        // The old name is nobody's now; its place is free for the next.
        let zeros = [UInt8](repeating: 0, count: old.sizeBytes)
        try await storage.writeFully(from: zeros, byteCount: zeros.count, fileOffset: old.fileOffset)
        try await storage.sync()
    }

    /// Zeros in the header area, behind the header itself.
    private func unusedHeaderSpace(byteCount: Int, path: String) async throws -> UInt64 {
        // Names are short, and so is the part of the area that is looked at.
        let area = Int(min(header.headerAreaSizeBytes, 64 << 10))
        let buffer = PageBuffer(byteCount: area)
        try await storage.readFully(into: buffer.address, byteCount: area, fileOffset: 0)
        let bytes = UnsafeRawBufferPointer(start: buffer.address, count: area)
        if let place = header.unusedSpace(for: byteCount, in: bytes) { return UInt64(place) }
        throw ImageToolError.refused(
            path: path,
            reason: "has no room in its header for a backing file name of \(byteCount) bytes; use a shorter one")
    }
}
