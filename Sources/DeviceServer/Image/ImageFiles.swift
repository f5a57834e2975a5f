import BlockStorage
import CSupport
import IOURing
import ImageTools
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// The files of an image that is to be served: opened, locked, and found to be those that are meant. Of what is in them the
/// headers alone were read; the tables are `ImageSession`'s to read, which of an untrusted image comes when the process has no
/// rights left.
final class ImageFiles {
    let path: String
    /// The image first.
    let chain: [LayerFile]
    /// Of an image that is written.
    let sessionFile: SessionFile?
    let options: ImageOptions
    /// As `Image.leftOutChanges`, of what the last server was about to seal.
    let changesLeftOutOfSnapshot: Int
    /// The last server died while it put the disk back: the kernel may have pages of what was there.
    let endsRollback: Bool
    /// On which the tables are read.
    let loop: RingLoop
    /// The process gives its rights away before it closes the image: what it could not have any more then is kept.
    let isForConfinement: Bool

    /// Opens and locks the image and its chain.
    /// - Parameters:
    ///   - record: of a device of it, which is in use, perhaps, and waits for a server.
    ///   - recorder: is told what is read from the bottom of the chain.
    ///   - willChange: called, with the chain, once the files are known to be the device's, and before anything is written.
    init(
        _ configuration: ServerConfiguration, continuing record: DeviceRecord? = nil, recorder: ReadRecorder? = nil,
        willChange: ([LayerFile]) throws(ServerError) -> Void = { _ in }
    ) throws(ServerError) {
        var configuration = configuration
        configuration.backing.knownBase = record?.base
        configuration.backing.baseOpening = .quick
        path = configuration.imagePath
        isForConfinement = configuration.isUntrusted
        let isReadOnly = !configuration.changesImage
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
        var policy = configuration.backing
        // Without rights there is no other connection when one is lost.
        if isForConfinement { (policy.bases, policy.asksMachineForBases) = ([], false) }
        do {
            chain = try ImageChain.open(path: path, isReadOnly: isReadOnly, policy: policy, isDevices: record != nil)
        } catch {
            throw .chain(error)
        }
        if case .qed(let header, _) = chain[0].layer, header.imageSizeBytes == 0 { throw .emptyImage(path: path) }
        if configuration.keepsReads, case .qed(let header, _) = chain[0].layer {
            // A device that is flattened has nothing to keep any more.
            guard record != nil || (chain.count > 1 && !(chain.last?.isQED ?? true)) else { throw .nothingToKeep(path: path) }
            guard header.geometry.clusterSizeBytes <= ImageOptions.largestKeptClusterBytes else {
                throw .clustersTooLargeToKeep(path: path)
            }
        }
        let backingFiles = chain.dropFirst().map(\.source.identity)
        if let record {
            try ImageFiles.check(chain, backingFiles, against: record)
            ImageFiles.removeMergedFiles(of: record, chain, backingFiles)
        }
        if isForConfinement {
            for layer in chain {
                do throws(ImageFileError) { try (layer.source as? ImageFile)?.keepReader() } catch {
                    throw .chain(.image(.file(error), backingOf: nil))
                }
            }
        }
        try willChange(chain)
        if let limit = configuration.keepLimitBytes, record == nil { try ImageFiles.prepareToForget(chain, limit) }
        loop = try ImageSession.makeLoop()
        var options = ImageOptions(
            isReadOnly: isReadOnly, cacheBytes: configuration.cacheBytes, continuesSession: record != nil,
            discardsLostSession: configuration.discardsLostSession)
        var sessionFile: SessionFile?
        options.keepsReads = configuration.keepsReads
        options.keptLimitBytes = configuration.keptLimitBytes
        options.recorder = recorder
        if !isReadOnly {
            do throws(RegistryError) {
                sessionFile = try SessionFile(image: chain[0].file.identity, registry: DeviceRegistry())
            } catch {
                loop.close()
                throw .registry(error)
            }
            options.session = sessionFile?.memory
        }
        (self.options, self.sessionFile) = (options, sessionFile)
    }

    /// Those beneath the image, in the order of the chain.
    var backingFiles: [FileIdentity] { chain.dropFirst().map(\.source.identity) }

    /// Whether the image's file takes the pages of requests as they are, past the page cache. The block layer aligns
    /// them to 512 bytes. A file system that cannot say what it wants of direct I/O has none worth the name (tmpfs).
    var takesPages: Bool {
        let alignment = chain[0].file.alignment
        return alignment != .none && alignment.memoryBytes <= Int(QEDLimits.sectorSizeBytes)
    }

    /// The same, of a file that will be accessed past the page cache where that takes blocks of this size, and else through it.
    func takesPages(inBlocksOf blockSizeBytes: Int) -> Bool {
        guard let direct = chain[0].file.directAlignment else { return false }
        return takesPages && blockSizeBytes % direct.offsetBytes == 0
    }

    /// Lets go of the loop, unless it is needed once more, when the image is closed.
    func endOpening() { if !isForConfinement { loop.close() } }

    /// The image was not opened, or could not be: nothing in it was changed.
    func abandon() {
        endOpening()
        // What another server has left there may still be needed.
        if let sessionFile, sessionFile.isNew, !Confinement.isEntered { sessionFile.remove() }
    }

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
            let other = zip(chain.dropFirst(), record.backingFiles).first { $0.source.identity != $1 }
            throw .anotherFile(path: other?.0.source.path ?? image.path, id: record.deviceID)
        }
    }

    /// The image may lose what it keeps, and so must have nothing else.
    private static func prepareToForget(_ chain: [LayerFile], _ limitBytes: UInt64) throws(ServerError) {
        let (image, path) = (chain[0].file, chain[0].file.path)
        guard chain.count == 2 || chain.count == 3 && KeptRoom.isExpendable(chain[1].file) else {
            throw .tooDeepToBound(path: path)
        }
        if case .qed(let header, _) = chain[0].layer {
            let leastBytes = header.geometry.tableSizeBytes * 64
            guard limitBytes >= leastBytes else { throw .limitTooSmall(path: path, leastBytes: leastBytes) }
        }
        if KeptRoom.isExpendable(image) { return }
        var isMarked = false
        do throws(ImageToolError) {
            if chain.count == 2 { isMarked = try KeptReadsMark.put(onEmpty: image) }
        } catch {
            throw .notMarked("\(error)")
        }
        guard isMarked else { throw .notOnlyKept(path: path) }
    }

    /// Ends a merge whose server died when the image had the shorter chain, and the files were still there.
    private static func removeMergedFiles(of record: DeviceRecord, _ chain: [LayerFile], _ backingFiles: [FileIdentity]) {
        guard backingFiles == record.nextBackingFiles, backingFiles != record.backingFiles else { return }
        // The header that names the shorter chain may have been read from the page cache alone: after a power cut the old one
        // would be there again, and name what is gone.
        for layer in chain {
            if let file = layer.source as? ImageFile, cs_fsync(file.descriptor) < 0 { return }
        }
        // What stays is in nobody's way.
        try? MergedFiles(files: record.mergedFiles).remove()
    }
}
