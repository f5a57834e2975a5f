import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat

/// Gives an overlay another backing file, or none.
///
/// Safely: what the overlay takes from the old backing file, and would read differently from the new one, is copied
/// into the overlay first, and is durable before the header changes. Interrupted before that the overlay reads as
/// before.
public struct ImageRebase: Sendable {
    public var path: String
    /// Nil: the image shall need no backing file any more.
    public var backing: ImageCreation.Backing?
    /// Only the name is changed; neither backing file is looked at. The new one may be a base elsewhere.
    public var isUnsafe: Bool
    /// For the files that images name; the new backing file is named by the user.
    public var policy: BackingPolicy

    public init(
        path: String, backing: ImageCreation.Backing?, isUnsafe: Bool = false, policy: BackingPolicy = .plainFiles
    ) {
        self.path = path
        self.backing = backing
        self.isUnsafe = isUnsafe
        self.policy = policy
    }

    /// Blocks until the change is durable.
    public func run(progress: (@Sendable (Double) -> Void)? = nil) throws(ImageToolError) {
        let name: BackingFileName?
        let newPath: String?
        do {
            if let address = try backing.flatMap({ try ImageRebase.address($0) }) {
                guard isUnsafe else {
                    throw ImageToolError.refused(
                        path: path,
                        reason:
                            "is not compared with a base elsewhere; where that has what the overlay needs, -u changes the name")
                }
                guard backing?.format == .raw else {
                    throw ImageToolError.refused(path: path, reason: "cannot have that backing file: a base elsewhere is raw")
                }
                (name, newPath) = (address, nil)
            } else {
                name = try backing.map { try BackingFileName(storing: $0.name) }
                newPath = try name?.path(inImageAt: path)
            }
        } catch let error as ImageToolError {
            throw error
        } catch {
            throw .refused(
                path: path, reason: "cannot have that backing file: \((error as? QEDFormatError)?.fault ?? "\(error)")")
        }
        let image =
            isUnsafe
            ? try OfflineImage(path: path, access: .readWrite)
            : try OfflineImage.sound(path: path, withChainUnder: policy)
        // Without a backing file what is unallocated reads as zeros, and must go on doing so over a new one.
        if !isUnsafe && (image.structure.header.backingFileNameRange != nil || newPath != nil) {
            let new = try newPath.map { newPath throws(ImageToolError) in try open(newPath, image) }
            try copyDifferences(image, new, progress)
            try image.reload()
        }
        let isRaw = backing?.format == .raw
        let path = self.path
        try image.edit { structure in
            try await structure.clearAutoclearBitsDurably()
            try await structure.setBackingFile(name, isRaw: isRaw, path: path)
        }
    }

    /// The name of a base elsewhere, as `create --base` stores it; nil where it is a file.
    private static func address(_ backing: ImageCreation.Backing) throws -> BackingFileName? {
        let name = try BackingFileName(Array(backing.name.utf8))
        return try name.address.map { _ in name }
    }

    private func open(_ newPath: String, _ image: OfflineImage) throws(ImageToolError) -> Disk {
        guard let backing else { preconditionFailure("a path without a backing file") }
        if FileIdentity(ofFileAt: newPath) == image.file.identity {
            throw .refused(path: path, reason: "cannot be its own backing file")
        }
        let disk = try Disk(
            path: newPath, format: backing.format == .raw ? .raw : .qed, isReadOnly: true, policy: policy)
        guard !disk.identities.contains(image.file.identity) else {
            throw .chain(.loop(path: path, repeated: newPath))
        }
        return disk
    }

    /// Writes into the overlay, cluster by cluster, what it would lose with the old backing file.
    private func copyDifferences(
        _ image: OfflineImage, _ new: Disk?, _ progress: (@Sendable (Double) -> Void)?
    ) throws(ImageToolError) {
        let overlay = try Disk(of: image, isReadOnly: false, policy: policy)
        let clusterBytes = image.structure.geometry.clusterSizeBytes
        let maps = (try overlay.map(), try new?.map())
        let windowBytes = max(clusterBytes, UInt64(Disk.usualDepth * Disk.largestRequestBytes))
        let buffers = (PageBuffer(byteCount: Int(windowBytes)), PageBuffer(byteCount: Int(windowBytes)))
        var position: UInt64 = 0
        while position < overlay.sizeBytes {
            progress?(Double(position) / Double(overlay.sizeBytes))
            let here = try maps.0.extent(at: position, limit: overlay.sizeBytes)
            let clusterEnd = { (offset: UInt64) in min((offset / clusterBytes + 1) * clusterBytes, overlay.sizeBytes) }
            if here.depth == 0 && here.kind != .unallocated {
                position = here.end
                continue
            }
            // Up to here neither side has anything but zeros.
            let there = try extent(maps.1, at: position, limit: overlay.sizeBytes)
            let emptyEnd = min(here.kind == .data ? position : here.end, there.kind == .data ? position : there.end)
            if emptyEnd / clusterBytes * clusterBytes > position || emptyEnd == overlay.sizeBytes {
                position = emptyEnd == overlay.sizeBytes ? emptyEnd : emptyEnd / clusterBytes * clusterBytes
                continue
            }
            var end = position
            while end < overlay.sizeBytes, end - position < windowBytes, try isBeneath(maps.0, end) {
                end = clusterEnd(end)
            }
            let count = Int(end - position)
            try overlay.read(position, byteCount: count, into: buffers.0.address)
            try readPadded(new, position, byteCount: count, into: buffers.1.address)
            var requests: [BlockRequest] = []
            var zeros: [BlockRequest] = []
            for start in stride(from: 0, to: count, by: Int(clusterBytes)) {
                let size = min(Int(clusterBytes), count - start)
                guard memcmp(buffers.0.address + start, buffers.1.address + start, size) != 0 else { continue }
                if Zeros.fill(buffers.0.address + start, count: size) {
                    zeros.append(
                        BlockRequest(.writeZeroes, deviceOffset: position + UInt64(start), byteCount: UInt64(size)))
                }
                for piece in stride(from: start, to: start + size, by: Disk.largestRequestBytes) {
                    requests.append(
                        BlockRequest(
                            .write, deviceOffset: position + UInt64(piece),
                            byteCount: UInt64(min(Disk.largestRequestBytes, start + size - piece)),
                            buffer: buffers.0.address + piece))
                }
            }
            try overlay.perform(requests)
            // Zeros need a cluster, to hide the new backing file, but no space.
            try overlay.perform(zeros)
            position = end
        }
        try overlay.close()
        try new?.close()
        progress?(1)
    }

    /// Whether the overlay itself has nothing for the cluster that begins at `deviceOffset`.
    private func isBeneath(_ map: DiskMap, _ deviceOffset: UInt64) throws(ImageToolError) -> Bool {
        let extent = try map.extent(at: deviceOffset, limit: map.sizeBytes)
        return extent.depth > 0 || extent.kind == .unallocated
    }

    private func extent(_ map: DiskMap?, at position: UInt64, limit: UInt64) throws(ImageToolError) -> DiskExtent {
        guard let map, position < map.sizeBytes else {
            return DiskExtent(start: position, length: limit - position, kind: .unallocated, depth: 0, fileOffset: nil)
        }
        return try map.extent(at: position, limit: min(limit, map.sizeBytes))
    }

    private func readPadded(
        _ disk: Disk?, _ deviceOffset: UInt64, byteCount: Int, into buffer: UnsafeMutableRawPointer
    ) throws(ImageToolError) {
        let size = disk?.sizeBytes ?? 0
        let covered = deviceOffset >= size ? 0 : Int(min(UInt64(byteCount), size - deviceOffset))
        if let disk, covered > 0 { try disk.read(deviceOffset, byteCount: covered, into: buffer) }
        (buffer + covered).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - covered)
    }
}
