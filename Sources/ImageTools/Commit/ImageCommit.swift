import BlockStorage
import Platform
import QEDChain
import QEDEngine
import QEDFormat

/// Writes what an overlay has into its backing file, and empties the overlay.
///
/// The backing file is durable before the overlay gives anything up. Interrupted at any point the overlay reads as
/// before, and a second run ends what the first began.
public struct ImageCommit: Sendable {
    public var path: String
    /// Leaves the overlay as it is.
    public var keepsOverlay: Bool
    /// For the files that images name, of which one is written.
    public var policy: BackingPolicy

    public init(path: String, keepsOverlay: Bool = false, policy: BackingPolicy = .plainFiles) {
        self.path = path
        self.keepsOverlay = keepsOverlay
        self.policy = policy
    }

    /// Blocks until it is durable. Every other overlay of the same backing file is worthless afterwards.
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) {
        let image = try OfflineImage.sound(path: path, withChainUnder: policy)
        guard let name = image.backingFileName else {
            throw .refused(path: path, reason: "has no backing file to commit to")
        }
        let basePath: String
        do throws(BackingNameError) { basePath = try name.path(inImageAt: path) } catch {
            throw .chain(.backingName(path: path, error))
        }
        if FileIdentity(ofFileAt: basePath) == image.file.identity {
            throw .chain(.loop(path: path, repeated: basePath))
        }
        let format: DiskFormat = image.structure.header.backingFileIsRaw ? .raw : .qed
        let size = image.structure.header.imageSizeBytes
        try growBase(basePath, format, to: size)

        let base = try Disk(
            path: basePath, format: format, isReadOnly: false, policy: policy, isNamedByImage: true)
        guard !base.identities.contains(image.file.identity) else {
            throw .chain(.loop(path: path, repeated: basePath))
        }
        // Without its backing file: that is being written.
        let overlay = try Disk(of: image, isReadOnly: true, opensBackingFiles: false)
        let map = try overlay.map()
        try DiskCopy(from: overlay, to: base, holes: .areMade).run(0..<size, map: map, progress: progress) {
            $0.kind != .unallocated
        }
        try base.close()
        try overlay.close()
        guard !keepsOverlay else { return }
        try image.edit { structure in
            try await structure.removeAllTables()
            try await structure.storage.sync()
            let pass = try CheckPass(structure, mode: .fast)
            try await pass.run()
            guard pass.report.isSound && pass.holes.inferredBytes == 0 else { return }
            structure.fileSizeBytes = try await LeakReclaim(structure: structure).run(pass).fileSizeBytes
        }
    }

    private func growBase(_ path: String, _ format: DiskFormat, to size: UInt64) throws(ImageToolError) {
        switch format {
        case .qed:
            let base = try OfflineImage.sound(path: path, policy: policy)
            guard base.structure.header.imageSizeBytes < size else { return }
            var header = base.structure.header
            do throws(QEDFormatError) { try header.setImageSize(bytes: size) } catch {
                throw .refused(path: path, reason: "cannot grow to the size of its overlay: \(error.fault)")
            }
            try ImageResize.grow(base, to: size, policy: policy)
        case .raw:
            let base = try RawDisk(path: path, isReadOnly: false, sharing: false, depth: 1, policy: policy)
            guard base.sizeBytes < size else { return }
            guard !base.file.isBlockDevice else {
                throw .refused(path: path, reason: "is smaller than its overlay, and a block device, which cannot grow")
            }
            do throws(StorageError) {
                try base.setLength(size)
                try base.close()
            } catch {
                throw .storage(path: path, error)
            }
        }
    }
}

extension ImageStructure {
    /// Writes an empty L1 table over the image's.
    func removeAllTables() async throws(StorageError) {
        let buffer = PageBuffer(byteCount: tablePieceBytes)
        buffer.zero()
        var done: UInt64 = 0
        while done < geometry.tableSizeBytes {
            try await storage.writeFully(
                from: buffer.address, byteCount: buffer.byteCount, fileOffset: header.l1TableFileOffset + done)
            done += UInt64(buffer.byteCount)
        }
    }
}
