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
    /// For a server that may make no ring any more when it closes the image.
    private let closing: RingLoop?

    var path: String { top.withLock { $0.path } }
    var image: Image { top.withLock { $0.image } }
    var chain: [LayerFile] { top.withLock { $0.chain } }

    /// Reads the tables, and brings into them what a dead server had answered.
    init(_ files: ImageFiles) throws(ServerError) {
        let (chain, loop, options) = (files.chain, files.loop, files.options)
        let storages = chain.storages(on: loop.ring)
        let image: Image
        do throws(ImageOpenError) {
            image = try loop.run { () throws(ImageOpenError) in
                try await Image.open(chain: chain.map(\.layer), storages: storages, options: options)
            }
        } catch {
            throw .image(path: files.path, error)
        }
        closing = files.isForConfinement ? loop : nil
        files.endOpening()
        changesLeftOutOfSnapshot = files.changesLeftOutOfSnapshot
        endsRollback = files.endsRollback
        top = Lock(Top(path: files.path, image: image, chain: chain, sessionFile: files.sessionFile))
    }

    /// Opens an image with all rights.
    convenience init(_ configuration: ServerConfiguration, continuing record: DeviceRecord? = nil) throws(ServerError) {
        let files = try ImageFiles(configuration, continuing: record)
        do throws(ServerError) { try self.init(files) } catch {
            files.abandon()
            throw error
        }
    }

    /// The record of the device with the files that it has now.
    func updated(_ record: DeviceRecord) -> DeviceRecord {
        var record = record
        let (path, chain) = top.withLock { ($0.path, $0.chain) }
        let files = chain.map(\.source.identity)
        guard let image = files.first else { return record }
        record.imagePath = path
        record.image = image
        record.backingFiles = Array(files.dropFirst())
        record.base = chain.base
        return record
    }

    /// Those beneath the image, in the order of the chain.
    var backingFiles: [FileIdentity] { chain.dropFirst().map(\.source.identity) }

    /// What is to be known of the mapping log's memory; nil where all is well.
    var warning: String? { top.withLock { $0.sessionFile?.warning } }

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

    /// What the kernel is to be told of it; when its blocks are chosen.
    var shape: DiskShape {
        guard let blocks else { preconditionFailure("no blocks have been chosen") }
        return DiskShape(
            sizeBytes: image.sizeBytes, blockSizeBytes: blocks.blockSizeBytes, clusterSizeBytes: image.geometry.clusterSizeBytes)
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

    /// Makes everything durable, marks the image as clean, and releases its lock. No queue serves it any more.
    /// - Returns: how the image was left.
    @discardableResult
    func close() throws(ServerError) -> ImageMark? {
        defer { top.withLock { $0.chain = [] } }
        if let lower = top.withLock({ $0.lower }) { try close(lower) }
        let (image, chain) = top.withLock { ($0.image, $0.chain) }
        try close(image, chain)
        // A confined server's broker does it.
        if !Confinement.isEntered { top.withLock { $0.sessionFile?.remove() } }
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
