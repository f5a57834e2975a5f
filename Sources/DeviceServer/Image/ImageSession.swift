import BlockStorage
import CSupport
import IOURing
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

/// An image from its opening to its closing, on the main thread; the queues serve it in between on theirs, and a snapshot puts
/// another one over it.
final class ImageSession: @unchecked Sendable {
    // SAFETY: `top` is locked; the rest is the main thread's.

    /// What is served, and what was the top before a switch, until that is sealed.
    struct Top {
        /// By which the image is served.
        var path: String
        var image: Image
        var chain: [LayerFile]
        /// Of an image that is written.
        var sessionFile: SessionFile?
        var lower: Lower?
    }

    struct Lower {
        var image: Image
        var sessionFile: SessionFile?
        var names: SnapshotNames
        /// It is durable, with its name, and others may read it: only its tables are left to be adopted.
        var isSealed = false
    }

    let top: Lock<Top>
    /// As `Image.leftOutChanges`, of what the last server was about to seal.
    let changesLeftOutOfSnapshot: Int
    /// The last server died while it put the disk back: the kernel may have pages of what was there.
    let endsRollback: Bool
    /// In which blocks the image is served; nil before that is chosen.
    private(set) var blocks: BlockChoice?
    /// For a server that may make no ring any more, and remove no file, when it closes the image.
    private var closing: RingLoop?

    var path: String { top.withLock { $0.path } }
    var image: Image { top.withLock { $0.image } }
    var chain: [LayerFile] { top.withLock { $0.chain } }

    /// Opens and locks the image and its chain.
    /// - Parameters:
    ///   - record: of a device of it, which is in use, perhaps, and waits for a server.
    ///   - willChange: called, with the image's file and those beneath it, once the files are known to be the device's, and
    ///     before anything is written.
    init(
        _ configuration: ServerConfiguration, continuing record: DeviceRecord? = nil,
        willChange: (ImageFile, [FileIdentity]) throws(ServerError) -> Void = { _, _ in }
    ) throws(ServerError) {
        let path = configuration.imagePath
        let isReadOnly = configuration.isReadOnly
        if let record {
            UnsealedSnapshot.removeUnusedOverlay(of: record)
            changesLeftOutOfSnapshot = try UnsealedSnapshot(record)?.seal(configuration) ?? 0
            // The new image has its name already.
            if record.nextImage == nil, let rollback = record.rollback {
                do throws(Errno) { try rollback.finish(imagePath: path) } catch { throw .notClosed(path: path, error) }
                endsRollback = true
            } else {
                endsRollback = false
            }
        } else {
            (changesLeftOutOfSnapshot, endsRollback) = (0, false)
        }
        let chain: [LayerFile]
        do {
            chain = try ImageChain.open(
                path: path, isReadOnly: isReadOnly, policy: configuration.backing, isDevices: record != nil)
        } catch {
            throw .chain(error)
        }
        if case .qed(let header, _) = chain[0].layer, header.imageSizeBytes == 0 { throw .emptyImage(path: path) }
        let backingFiles = chain.dropFirst().map(\.file.identity)
        if let record {
            try ImageSession.check(chain, backingFiles, against: record)
            ImageSession.removeMergedFiles(of: record, chain, backingFiles)
        }
        try willChange(chain[0].file, backingFiles)
        let loop = try ImageSession.makeLoop()
        defer { loop.close() }
        let storages = chain.storages(on: loop.ring)
        var options = ImageOptions(
            isReadOnly: isReadOnly, cacheBytes: configuration.cacheBytes, continuesSession: record != nil,
            discardsLostSession: configuration.discardsLostSession)
        var sessionFile: SessionFile?
        if !isReadOnly {
            do throws(RegistryError) {
                sessionFile = try SessionFile(image: chain[0].file.identity, registry: DeviceRegistry())
            } catch {
                throw .registry(error)
            }
            options.session = sessionFile?.memory
        }
        let openOptions = options
        let image: Image
        do throws(ImageOpenError) {
            image = try loop.run { () throws(ImageOpenError) in
                try await Image.open(chain: chain.map(\.layer), storages: storages, options: openOptions)
            }
        } catch {
            // What another server has left there may still be needed.
            if let sessionFile, sessionFile.isNew { sessionFile.remove() }
            throw .image(path: path, error)
        }
        top = Lock(Top(path: path, image: image, chain: chain, sessionFile: sessionFile))
    }

    /// The record of the device with the files that it has now.
    func updated(_ record: DeviceRecord) -> DeviceRecord {
        var record = record
        let (path, files) = top.withLock { ($0.path, $0.chain.map(\.file.identity)) }
        guard let image = files.first else { return record }
        record.imagePath = path
        record.image = image
        record.backingFiles = Array(files.dropFirst())
        return record
    }

    /// Those beneath the image, in the order of the chain.
    var backingFiles: [FileIdentity] { chain.dropFirst().map(\.file.identity) }

    /// Whether these are the files that the device was made of, and nobody has written to the image meanwhile.
    private static func check(
        _ chain: [LayerFile], _ backingFiles: [FileIdentity], against record: DeviceRecord
    ) throws(ServerError) {
        let image = chain[0].file
        guard image.identity == record.image else { throw .anotherFile(path: image.path, id: record.deviceID) }
        if let mark = record.leftImage, mark != ImageMark(descriptor: image.descriptor) {
            throw .imageWritten(path: image.path)
        }
        guard backingFiles == record.backingFiles || backingFiles == record.nextBackingFiles else {
            let other = zip(chain.dropFirst(), record.backingFiles).first { $0.file.identity != $1 }
            throw .anotherFile(path: other?.0.file.path ?? image.path, id: record.deviceID)
        }
    }

    /// Ends a merge whose server died when the image had the shorter chain, and the files were still there.
    private static func removeMergedFiles(of record: DeviceRecord, _ chain: [LayerFile], _ backingFiles: [FileIdentity]) {
        guard backingFiles == record.nextBackingFiles, backingFiles != record.backingFiles else { return }
        // The header that names the shorter chain may have been read from the page cache alone: after a power cut the old one
        // would be there again, and name what is gone.
        for layer in chain where cs_fsync(layer.file.descriptor) < 0 { return }
        // What stays is in nobody's way.
        try? MergedFiles(files: record.mergedFiles).remove()
    }

    /// What is to be known of the mapping log's memory; nil where all is well.
    var warning: String? { top.withLock { $0.sessionFile?.warning } }

    /// Whether the image's file takes the pages of requests as they are, past the page cache. The block layer aligns
    /// them to 512 bytes. A file system that cannot say what it wants of direct I/O has none worth the name (tmpfs).
    var takesPages: Bool {
        let alignment = chain[0].file.alignment
        return alignment != .none && alignment.memoryBytes <= Int(QEDLimits.sectorSizeBytes)
    }

    /// Chooses the blocks of a new device, and how the file is accessed from now on. Before a queue serves it.
    /// - Parameter wantedBytes: the size that is asked for.
    func chooseBlocks(wantedBytes: Int?) throws(ServerError) -> BlockChoice {
        let choice: BlockChoice
        do throws(BlockSizeError) {
            choice = try BlockChoice(
                wantedBytes: wantedBytes, imageSizeBytes: image.sizeBytes, partitionTable: PartitionTable(of: chain),
                directBytes: directBytes)
        } catch {
            throw .blockSize(path: path, reason: "\(error)")
        }
        try use(choice)
        return choice
    }

    /// The same for a device that exists, made by any version of this program, on whatever file system the image was.
    func keepBlocks(of parameters: UblkParameters) throws(ServerError) {
        try use(
            BlockChoice(
                ofDeviceWithBlocksOf: 1 << Int(parameters.basic.logicalBlockShift), imageSizeBytes: image.sizeBytes,
                directBytes: directBytes))
    }

    private var directBytes: Int? { chain[0].file.directAlignment?.offsetBytes }

    private func use(_ choice: BlockChoice) throws(ServerError) {
        let file = chain[0].file
        if !choice.isDirect {
            do throws(ImageFileError) { try file.useBufferedIO() } catch {
                throw .chain(.image(.file(error), backingOf: nil))
            }
        }
        precondition(
            choice.blockSizeBytes % file.alignment.offsetBytes == 0, "requests that the image's file does not take")
        blocks = choice
    }

    /// The server is about to give up its rights: what closing takes is had now. The log of the image is its broker's to remove.
    func prepareForConfinement() throws(ServerError) { closing = try ImageSession.makeLoop() }

    /// Makes everything durable, marks the image as clean, and releases its lock. No queue serves it any more.
    /// - Returns: how the image was left.
    @discardableResult
    func close() throws(ServerError) -> ImageMark? {
        defer { top.withLock { $0.chain = [] } }
        if let lower = top.withLock({ $0.lower }) { try close(lower) }
        let (image, chain) = top.withLock { ($0.image, $0.chain) }
        try close(image, chain)
        if closing == nil { top.withLock { $0.sessionFile?.remove() } }
        return ImageMark(descriptor: chain[0].file.descriptor)
    }

    private func close(_ image: Image, _ chain: [LayerFile]) throws(ServerError) {
        let loop: RingLoop
        if let closing { loop = closing } else { loop = try ImageSession.makeLoop() }
        defer { loop.close() }
        let driver = EngineDriver(
            image: image, storages: chain.storages(on: loop.ring), depth: 1, largestRequestBytes: 1 << 20,
            on: loop)
        do throws(RequestError) { try driver.close() } catch {
            throw .notClosed(path: path, error.errno)
        }
    }

    /// What was the top before a switch comes first, with its name.
    private func close(_ lower: Lower) throws(ServerError) {
        let image = image
        if !lower.isSealed {
            try close(lower.image, Array(chain.dropFirst()))
            if let errno = lower.names.sync() { throw .notClosed(path: path, errno) }
            image.noteLowerDurable()
            lower.sessionFile?.remove()
        }
        image.adopt(image.tablesToAdopt())
        top.withLock { $0.lower = nil }
    }

    static func makeLoop() throws(ServerError) -> RingLoop {
        do { return try RingLoop(entries: 128, completionEntries: 512) } catch { throw .ring(error) }
    }
}
