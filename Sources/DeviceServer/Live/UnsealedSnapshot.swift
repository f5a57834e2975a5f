import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import SystemPackage

/// A snapshot whose server died before it was sealed: the file still lacks what only its log has.
struct UnsealedSnapshot {
    private let path: String
    private let file: FileIdentity
    private let imagePath: String

    /// nil where the record tells of none.
    init?(_ record: DeviceRecord) {
        guard let path = record.unsealedSnapshot, let file = record.backingFiles.first else { return nil }
        self.path = path
        self.file = file
        imagePath = record.imagePath
    }

    /// Takes away an overlay that was made for a snapshot and has not become the image.
    static func removeUnusedOverlay(of record: DeviceRecord) {
        guard let overlay = record.nextImage, let path = record.nextSnapshot else { return }
        if FileIdentity(ofFileAt: path) == overlay { unlink(path) }
        unlink(SessionLogPath.path(inDirectory: DeviceRegistry.standardDirectory, image: overlay))
    }

    /// Brings what its server had answered into the file, makes it durable and marks it as clean, and makes its name durable:
    /// before anything is written over it. What was done before is no harm.
    func seal(_ configuration: ServerConfiguration) throws(ServerError) {
        let chain: [LayerFile]
        do throws(ChainError) {
            chain = try ImageChain.open(path: path, isReadOnly: false, policy: configuration.backing, isDevices: true)
        } catch {
            throw .chain(error)
        }
        guard chain[0].file.identity == file else { throw .snapshotReplaced(path: path, image: imagePath) }
        let log: SessionFile
        do throws(RegistryError) { log = try SessionFile(image: file, registry: DeviceRegistry()) } catch {
            throw .registry(error)
        }
        // Only an image that was changed has something left to be replayed; one that was closed has no log any more.
        let options = ImageOptions(session: log.memory, continuesSession: !log.isNew)
        do {
            let engine = try LocalEngine(chain: chain, options: options, depth: 1, largestRequestBytes: 1 << 20)
            try engine.close()
            let names = try SnapshotNames(of: chain[0].file, at: path, snapshotPath: imagePath)
            if let errno = names.sync() { throw errno }
        } catch let error as ImageOpenError {
            throw .image(path: path, error)
        } catch let error as RequestError {
            throw .notClosed(path: path, error.errno)
        } catch {
            throw .notClosed(path: path, error as? Errno ?? .ioError)
        }
        log.remove()
    }
}
