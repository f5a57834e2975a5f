import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// The contents of a file as a disk: what a tool reads from and writes to, whatever the format.
///
/// Belongs to the thread that made it. Images are opened with their backing chain, by the engine that serves devices.
public final class Disk: @unchecked Sendable {
    // SAFETY: used by the thread that made it.
    private enum Backend {
        case qed(LocalEngine)
        case raw(RawDisk)
    }

    public let path: String
    public let format: DiskFormat
    /// A multiple of 512.
    public let sizeBytes: UInt64
    /// How many requests can be under way; their slots are numbered from 0.
    public let depth: Int
    private let backend: Backend
    private var isOpen = true

    /// Requests under way at once, unless told otherwise, and the most that one of them moves.
    public static let usualDepth = 16
    public static let largestRequestBytes = 1 << 20

    /// - Parameters:
    ///   - shownAs: the name in messages, where it is not the path.
    ///   - sharing: read without locks.
    ///   - caching: of the disk's own file; where it is direct, requests must be made of blocks of
    ///     `offsetAlignmentBytes`, and so must their buffers.
    ///   - policy: for the files that images name.
    ///   - isNamedByImage: the disk itself is such a file.
    public init(
        path: String, shownAs shown: String? = nil, format: DiskFormat, isReadOnly: Bool, sharing: Bool = false,
        caching: ImageFile.Caching = .buffered, depth: Int = Disk.usualDepth, policy: BackingPolicy = .plainFiles,
        isNamedByImage: Bool = false
    ) throws(ImageToolError) {
        self.path = shown ?? path
        self.format = format
        self.depth = depth
        switch format {
        case .raw:
            let disk = try RawDisk(
                path: path, isReadOnly: isReadOnly, sharing: sharing, caching: caching, depth: depth,
                policy: isNamedByImage ? policy : nil)
            backend = .raw(disk)
            sizeBytes = disk.sizeBytes
        case .qed:
            let engine = try Disk.engine(
                path, isReadOnly: isReadOnly, locking: sharing ? .none : .all, caching: caching, depth: depth,
                policy: policy, isNamedByImage: isNamedByImage)
            backend = .qed(engine)
            sizeBytes = engine.image.sizeBytes
        }
    }

    /// The disk of an image that is open already, and belongs to this from now on.
    init(_ engine: LocalEngine, path: String) {
        self.path = path
        format = .qed
        depth = engine.queue.depth
        backend = .qed(engine)
        sizeBytes = engine.image.sizeBytes
    }

    /// The disk of an image that a tool has open, and locked.
    /// - Parameters:
    ///   - opensBackingFiles: otherwise what the image does not have reads as zeros.
    ///   - sizeBytes: instead of the image's own; the header is not changed.
    init(
        of image: OfflineImage, isReadOnly: Bool, opensBackingFiles: Bool = true, sizeBytes: UInt64? = nil,
        policy: BackingPolicy = .plainFiles
    ) throws(ImageToolError) {
        path = image.path
        format = .qed
        depth = Disk.usualDepth
        let engine = try Disk.engine(
            image.path, isReadOnly: isReadOnly, locking: .backingFiles, opensBackingFiles: opensBackingFiles,
            sizeBytes: sizeBytes, depth: depth, policy: policy, isNamedByImage: false)
        backend = .qed(engine)
        self.sizeBytes = engine.image.sizeBytes
        guard engine.chain[0].file.identity == image.file.identity else {
            throw .read(.file(.changedWhileOpening(path: image.path)))
        }
    }

    private static func engine(
        _ path: String, isReadOnly: Bool, locking: ChainLocking, opensBackingFiles: Bool = true,
        sizeBytes: UInt64? = nil, caching: ImageFile.Caching = .buffered, depth: Int, policy: BackingPolicy,
        isNamedByImage: Bool
    ) throws(ImageToolError) -> LocalEngine {
        do {
            var chain = try ImageChain.open(
                path: path, isReadOnly: isReadOnly, caching: caching, locking: locking,
                opensBackingFiles: opensBackingFiles, policy: policy, isNamedByImage: isNamedByImage)
            if let sizeBytes, case .qed(var header, let fileSizeBytes) = chain[0].layer {
                try header.setImageSize(bytes: sizeBytes)
                chain[0] = LayerFile(
                    file: chain[0].file, layer: .qed(header: header, fileSizeBytes: fileSizeBytes))
            }
            return try LocalEngine(
                chain: chain, options: ImageOptions(isReadOnly: isReadOnly), depth: depth,
                largestRequestBytes: Disk.largestRequestBytes)
        } catch let error as QEDFormatError {
            throw .refused(path: path, reason: error.fault)
        } catch {
            throw ImageToolError(opening: path, error)
        }
    }

    deinit { abandon() }

    /// Starts a request; its buffer is untouched until the slot has finished.
    func start(_ slot: Int, _ request: BlockRequest) {
        switch backend {
        case .qed(let engine): engine.queue.start(slot, request)
        case .raw(let disk): disk.start(slot, request)
        }
    }

    func nextFinished() -> (slot: Int, result: Int32)? {
        switch backend {
        case .qed(let engine): engine.queue.nextFinished()
        case .raw(let disk): disk.nextFinished()
        }
    }

    /// Hands what is prepared to the kernel and handles what has completed.
    func turn(waits: Bool) {
        switch backend {
        case .qed(let engine): engine.turn(waits: waits)
        case .raw(let disk): disk.turn(waits: waits)
        }
    }

    /// Performs requests, as many at once as there are slots.
    /// - Throws: the first failure, when all have ended.
    public func perform(_ requests: [BlockRequest]) throws(ImageToolError) {
        var requestOfSlot = [Int](repeating: 0, count: depth)
        var freeSlots = Array((0..<depth).reversed())
        var next = 0
        var pending = requests.count
        var failure: (BlockRequest, Int32)?
        while pending > 0 {
            while next < requests.count, let slot = freeSlots.popLast() {
                requestOfSlot[slot] = next
                start(slot, requests[next])
                next += 1
            }
            while let (slot, result) = nextFinished() {
                if result < 0 && failure == nil { failure = (requests[requestOfSlot[slot]], result) }
                freeSlots.append(slot)
                pending -= 1
            }
            if pending > 0 && (freeSlots.isEmpty || next == requests.count) { turn(waits: true) }
        }
        if let (request, result) = failure {
            throw .request(
                path: path, request.operation.name, deviceOffset: request.deviceOffset, Errno(rawValue: -result))
        }
    }

    /// Reads a range with as many requests at once as the disk takes.
    func read(_ deviceOffset: UInt64, byteCount: Int, into buffer: UnsafeMutableRawPointer) throws(ImageToolError) {
        try perform(
            stride(from: 0, to: byteCount, by: Disk.largestRequestBytes).map {
                BlockRequest(
                    .read, deviceOffset: deviceOffset + UInt64($0),
                    byteCount: UInt64(min(Disk.largestRequestBytes, byteCount - $0)), buffer: buffer + $0)
            })
    }

    /// Makes everything durable and lets go of the file.
    public func close() throws(ImageToolError) {
        guard isOpen else { return }
        isOpen = false
        switch backend {
        case .qed(let engine):
            do { try engine.close() } catch {
                throw .request(path: path, "closing", deviceOffset: 0, (error as? RequestError)?.errno ?? .ioError)
            }
        case .raw(let disk):
            do throws(StorageError) { try disk.close() } catch { throw .storage(path: path, error) }
        }
    }

    /// Lets go of the file and leaves it as it is, as a crash would.
    public func abandon() {
        guard isOpen else { return }
        isOpen = false
        if case .qed(let engine) = backend { engine.abandon() }
    }

    /// Where the disk's contents lie, as its tables are on disk now.
    public func map() throws(ImageToolError) -> DiskMap {
        switch backend {
        case .qed(let engine): try DiskMap(chain: engine.chain)
        case .raw(let disk): try DiskMap(raw: disk.file)
        }
    }

    /// Makes the next reads come from the disk, as far as the kernel can.
    func dropFromPageCache() {
        let files =
            switch backend {
            case .qed(let engine): engine.chain.compactMap { $0.source as? ImageFile }
            case .raw(let disk): [disk.file]
            }
        for file in files { _ = posix_fadvise(file.descriptor, 0, 0, POSIX_FADV_DONTNEED) }
    }

    /// What offsets and lengths of requests must be multiples of.
    var offsetAlignmentBytes: UInt64 {
        switch backend {
        case .qed(let engine): UInt64(engine.chain[0].file.alignment.offsetBytes)
        case .raw(let disk): UInt64(disk.file.alignment.offsetBytes)
        }
    }

    /// The image's geometry; nil for a raw disk.
    public var geometry: QEDGeometry? {
        guard case .qed(let engine) = backend else { return nil }
        return engine.image.geometry
    }

    /// The files behind the disk, its own first.
    public var identities: [FileIdentity] {
        switch backend {
        case .qed(let engine): engine.chain.map(\.source.identity)
        case .raw(let disk): [disk.file.identity]
        }
    }
}

extension ImageToolError {
    /// What `LocalEngine` throws.
    init(opening path: String, _ error: any Error) {
        switch error {
        case let error as ChainError: self = .chain(error)
        case let error as ImageOpenError: self = .open(path: path, error)
        case let error as Errno: self = .noRing(error)
        default: preconditionFailure("an error of an unknown type: \(error)")
        }
    }
}

extension BlockOperation {
    /// For people.
    var name: String {
        switch self {
        case .read: "read"
        case .write: "write"
        case .flush: "flush"
        case .discard: "discard"
        case .writeZeroes: "write of zeroes"
        }
    }
}
