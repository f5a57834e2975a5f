import BlockStorage
import QEDEngine
import QEDFormat

/// The bytes of one image that are not guest data: header, L1 and L2 tables. For tools that work on them while nobody
/// serves the image.
///
/// Nothing here syncs unless its name says so: the order of durability is the caller's.
struct ImageStructure<S: Storage>: Sendable {
    let storage: S
    var header: QEDHeader
    /// Length of the file.
    var fileSizeBytes: UInt64

    var geometry: QEDGeometry { header.geometry }
    var bounds: TableEntryBounds { TableEntryBounds(header: header, fileSizeBytes: fileSizeBytes) }
    /// Whole clusters of the file.
    var clusterCount: UInt64 { bounds.endOfClustersFileOffset >> geometry.clusterShift }

    /// A bit for each cluster of the file, those of the header area set.
    func noOwners() throws(ImageOpenError) -> ClusterOwnership {
        guard var owners = ClusterOwnership.make(clusterCount: clusterCount) else {
            throw .tooLargeToCheck(fileSizeBytes: fileSizeBytes)
        }
        _ = owners.claim(first: 0, count: min(header.headerSizeClusters, clusterCount))
        return owners
    }

    /// The whole L1 table, in host byte order: entries past the image's size too.
    func readL1() async throws(StorageError) -> [UInt64] {
        var entries: [UInt64] = []
        entries.reserveCapacity(geometry.entriesPerTable)
        let buffer = PageBuffer(byteCount: tablePieceBytes)
        while entries.count < geometry.entriesPerTable {
            try await storage.readSectors(
                into: buffer.address, byteCount: buffer.byteCount,
                fileOffset: header.l1TableFileOffset + UInt64(entries.count * 8))
            let values = buffer.address.assumingMemoryBound(to: UInt64.self)
            for index in 0..<(buffer.byteCount / 8) { entries.append(UInt64(littleEndian: values[index])) }
        }
        return entries
    }

    /// Writes the part of a table in memory that holds the entries `indexes`: whole sectors, because a sector is what
    /// reaches the disk in one piece.
    /// - Parameter table: `entryCount` entries, little-endian, the first of which lies at `fileOffset`.
    func writeEntries(
        _ indexes: ClosedRange<Int>, of table: UnsafeRawPointer, at fileOffset: UInt64
    ) async throws(StorageError) {
        let sector = Int(QEDLimits.sectorSizeBytes)
        let start = indexes.lowerBound * 8 / sector * sector
        let end = (indexes.upperBound * 8 + sector) / sector * sector
        try await storage.writeFully(
            from: table + start, byteCount: end - start, fileOffset: fileOffset + UInt64(start))
    }

    /// Writes one entry of a table that is not in memory.
    func writeEntry(_ value: UInt64, at entryFileOffset: UInt64) async throws(StorageError) {
        let sector = Int(QEDLimits.sectorSizeBytes)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: sector, alignment: sector)
        defer { buffer.deallocate() }
        let sectorOffset = entryFileOffset & ~UInt64(sector - 1)
        try await storage.readSectors(into: buffer, byteCount: sector, fileOffset: sectorOffset)
        buffer.storeBytes(of: value.littleEndian, toByteOffset: Int(entryFileOffset - sectorOffset), as: UInt64.self)
        try await storage.writeFully(from: buffer, byteCount: sector, fileOffset: sectorOffset)
    }

    /// Writes the header's sector; what follows the header in it stays.
    func writeHeader() async throws(StorageError) {
        let sector = Int(QEDLimits.sectorSizeBytes)
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: sector, alignment: sector)
        defer { buffer.deallocate() }
        try await storage.readFully(into: buffer, byteCount: sector, fileOffset: 0)
        buffer.copyMemory(from: header.encoded(), byteCount: QEDLimits.headerSizeBytes)
        try await storage.writeFully(from: buffer, byteCount: sector, fileOffset: 0)
    }

    /// Clears autoclear bits, durably: before anything else in the image is changed.
    mutating func clearAutoclearBitsDurably() async throws(StorageError) {
        guard header.hasAutoclearFeatures() else { return }
        header.clearAutoclearFeatures()
        try await writeHeader()
        try await storage.sync()
    }

    /// Copies `byteCount` bytes within the file; missing bytes of the source's last sector count as zeros.
    func copy(
        from source: UInt64, to destination: UInt64, byteCount: UInt64, through buffer: UnsafeMutableRawPointer,
        bufferBytes: Int
    ) async throws(StorageError) {
        var done: UInt64 = 0
        while done < byteCount {
            let piece = Int(min(UInt64(bufferBytes), byteCount - done))
            try await storage.readSectors(into: buffer, byteCount: piece, fileOffset: source + done)
            try await storage.writeFully(from: buffer, byteCount: piece, fileOffset: destination + done)
            done += UInt64(piece)
        }
    }
}
