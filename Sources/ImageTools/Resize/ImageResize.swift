import BlockStorage
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// Gives a disk another size.
///
/// *Growing* an image: what becomes visible reads as zeros, whatever old entries, the rest of the last cluster or the
/// backing file hold there; that is durable before the header says the new size. *Shrinking:* the header first, then
/// the entries behind the new end, then their space. Interrupted between any two steps the image has the old size or
/// the new one, and a second run ends what the first began.
public struct ImageResize: Sendable {
    public enum Change: Sendable, Equatable {
        case to(UInt64)
        case by(UInt64)
        case less(UInt64)
    }

    public var path: String
    public var format: DiskFormat
    public var change: Change
    /// Whether a smaller size is meant: what lies behind it is lost.
    public var allowsShrinking: Bool
    /// For the files that images name: growing looks at what they hold behind the old end.
    public var policy: BackingPolicy

    public init(
        path: String, format: DiskFormat = .qed, change: Change, allowsShrinking: Bool = false,
        policy: BackingPolicy = .plainFiles
    ) {
        self.path = path
        self.format = format
        self.change = change
        self.allowsShrinking = allowsShrinking
        self.policy = policy
    }

    /// Blocks until the new size is durable.
    /// - Returns: the new size in bytes, a multiple of 512.
    public func run() throws(ImageToolError) -> UInt64 {
        switch format {
        case .raw: return try resizeRaw()
        case .qed:
            let image = try open()
            let oldSize = image.structure.header.imageSizeBytes
            let newSize = try self.newSize(from: oldSize)
            var header = image.structure.header
            do throws(QEDFormatError) { try header.setImageSize(bytes: newSize) } catch {
                throw .refused(path: path, reason: "cannot have that size: \(error.fault)")
            }
            // The same size again finishes a shrink that was interrupted.
            if newSize > oldSize {
                try ImageResize.grow(image, to: newSize, policy: policy)
            } else {
                try image.edit { try await ImageResize.shrink($0, to: newSize) }
            }
            return newSize
        }
    }

    private func open() throws(ImageToolError) -> OfflineImage {
        let header: QEDHeader
        do throws(ImageReadError) { header = try ImageDescription(reading: path).header } catch { throw .read(error) }
        let grows = try newSize(from: header.imageSizeBytes) > header.imageSizeBytes
        return try grows
            ? OfflineImage.sound(path: path, withChainUnder: policy) : OfflineImage.sound(path: path)
    }

    private func newSize(from oldSize: UInt64) throws(ImageToolError) -> UInt64 {
        let sector = QEDLimits.sectorSizeBytes
        let wanted: UInt64? =
            switch change {
            case .to(let size): size
            case .by(let bytes): oldSize.addingReportingOverflow(bytes).overflow ? nil : oldSize + bytes
            case .less(let bytes): bytes <= oldSize ? oldSize - bytes : nil
            }
        guard let wanted, wanted <= QEDLimits.maximumImageSizeBytes else {
            throw .refused(path: path, reason: "has \(oldSize) bytes, and cannot be changed by that much")
        }
        let size = (wanted + sector - 1) / sector * sector
        guard size >= oldSize || allowsShrinking else {
            throw .refused(
                path: path,
                reason: "would shrink from \(oldSize) to \(size) bytes, and what lies behind would be lost; "
                    + "use --shrink if that is meant")
        }
        return size
    }

    /// Grows an image that is open and sound. The engine clears what becomes visible, as if the image had the new size
    /// already: entries behind the old size are nobody's until the header says otherwise.
    static func grow(
        _ image: OfflineImage, to newSize: UInt64, policy: BackingPolicy
    ) throws(ImageToolError) {
        let oldSize = image.structure.header.imageSizeBytes
        guard newSize > oldSize else { return }
        let disk = try Disk(of: image, isReadOnly: false, sizeBytes: newSize, policy: policy)
        try disk.perform([BlockRequest(.writeZeroes, deviceOffset: oldSize, byteCount: newSize - oldSize)])
        try disk.close()
        try image.reload()
        try image.edit { structure in
            try structure.header.setImageSize(bytes: newSize)
            try await structure.writeHeader()
            try await structure.storage.sync()
        }
    }

    /// Shrinks an image that is sound; the same size again ends what was interrupted.
    static func shrink<S: Storage>(_ structure: ImageStructure<S>, to newSize: UInt64) async throws {
        var structure = structure
        try structure.header.setImageSize(bytes: newSize)
        try await structure.writeHeader()
        try await structure.storage.sync()
        try await structure.dropEntries(from: newSize)
        try await structure.storage.sync()
        let pass = try CheckPass(structure, mode: .fast)
        try await pass.run()
        // Else the space stays, leaked.
        if pass.report.isSound && pass.holes.inferredBytes == 0 { _ = try await LeakReclaim(structure: structure).run(pass) }
    }

    private func resizeRaw() throws(ImageToolError) -> UInt64 {
        let disk = try RawDisk(path: path, isReadOnly: false, sharing: false, depth: 1)
        guard !disk.file.isBlockDevice else {
            throw .refused(path: path, reason: "is a block device, whose size is its own")
        }
        let size = try newSize(from: disk.file.sizeBytes)
        do throws(StorageError) {
            try disk.setLength(size)
            try disk.close()
        } catch {
            throw .storage(path: path, error)
        }
        return size
    }
}

extension ImageStructure {
    /// Removes every entry for clusters that begin at `deviceOffset` or later, and clears the part of the cluster
    /// before them that lies behind it.
    func dropEntries(from deviceOffset: UInt64) async throws(StorageError) {
        let firstDropped = (deviceOffset + geometry.clusterMask) & ~geometry.clusterMask
        let buffer = PageBuffer(byteCount: tablePieceBytes)
        var holes = TableHoles()
        let l1 = try await readL1()
        for (index, value) in l1.enumerated() where value != L2Entry.unallocatedValue {
            let (tableStart, tooFar) = UInt64(index).multipliedReportingOverflow(by: geometry.bytesPerL2Table)
            if tooFar || tableStart >= firstDropped {
                try await writeEntry(0, at: header.l1TableFileOffset + UInt64(index * 8))
                continue
            }
            guard firstDropped - tableStart < geometry.bytesPerL2Table, case .allocated = bounds.l1Entry(value) else {
                continue
            }
            try await visitTable(
                index, at: value, through: buffer.address, pieceBytes: buffer.byteCount, holes: &holes
            ) {
                (entries, fileOffset, pieceStart) async throws(StorageError) in
                let kept = firstDropped > pieceStart ? (firstDropped - pieceStart) >> geometry.clusterShift : 0
                guard kept < UInt64(entries.count) else { return }
                let first = Int(kept)
                guard entries[first...].contains(where: { $0 != 0 }), let base = entries.baseAddress else { return }
                for position in first..<entries.count { entries[position] = 0 }
                try await writeEntries(first...(entries.count - 1), of: base, at: fileOffset)
            }
        }
        try await clearRest(of: deviceOffset, l1: l1)
    }

    /// Zeroes the bytes behind `deviceOffset` of the cluster it lies in.
    private func clearRest(of deviceOffset: UInt64, l1: [UInt64]) async throws(StorageError) {
        let inCluster = deviceOffset & geometry.clusterMask
        let l1Index = geometry.l1Index(ofDeviceOffset: deviceOffset)
        guard inCluster > 0, l1Index < l1.count, case .allocated(let table) = bounds.l1Entry(l1[l1Index]) else {
            return
        }
        let buffer = PageBuffer(byteCount: 4096)
        let index = UInt64(geometry.l2Index(ofDeviceOffset: deviceOffset))
        try await storage.readSectors(into: buffer.address, byteCount: 8, fileOffset: table + index * 8)
        let entry = UInt64(littleEndian: buffer.address.load(as: UInt64.self))
        guard case .allocated(let cluster) = bounds.l2Entry(entry) else { return }
        try await storage.zero(
            fileOffset: cluster + inCluster, byteCount: geometry.clusterSizeBytes - inCluster, through: buffer)
    }
}

extension Storage {
    /// Makes a range read as zeros and gives its space back; writes zeros where the file system cannot.
    /// - Parameter buffer: overwritten.
    func zero(fileOffset: UInt64, byteCount: UInt64, through buffer: PageBuffer) async throws(StorageError) {
        var cannotPunch = false
        do throws(StorageError) {
            try await punchHole(fileOffset: fileOffset, byteCount: byteCount)
        } catch {
            guard error.errno == .notSupported else { throw error }
            cannotPunch = true
        }
        guard cannotPunch else { return }
        buffer.zero()
        var done: UInt64 = 0
        while done < byteCount {
            let piece = min(UInt64(buffer.byteCount), byteCount - done)
            try await writeFully(from: buffer.address, byteCount: Int(piece), fileOffset: fileOffset + done)
            done += piece
        }
    }
}
