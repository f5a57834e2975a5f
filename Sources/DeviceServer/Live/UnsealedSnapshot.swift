import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
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
        // It may be the image all the same, where nobody can see that now.
        guard FileIdentity(ofFileAt: path) == overlay else { return }
        unlink(path)
        unlink(SessionLogPath.path(inDirectory: DeviceRegistry.standardDirectory, image: overlay))
    }

    /// Brings what its server had answered into the file, makes it durable and marks it as clean, and makes its name durable:
    /// before anything is written over it. What was done before is no harm.
    /// - Returns: how many changes are left out, because a failed sync may have lost their data.
    func seal(
        _ configuration: ServerConfiguration, registry: DeviceRegistry = DeviceRegistry()
    ) throws(ServerError) -> Int {
        var leftOut = 0
        if try isSealed() {
            // Its server died before it could take the log away, in which there is nothing that is not in the file.
            unlink(SessionLogPath.path(inDirectory: registry.directory, image: file))
        } else {
            leftOut = try replay(configuration, registry)
        }
        do throws(Errno) { try SnapshotNames.sync(ofFilesAt: [path, imagePath]) } catch { throw .notClosed(path: path, error) }
        return leftOut
    }

    /// Then it may be read by others, too.
    private func isSealed() throws(ServerError) -> Bool {
        do throws(ImageReadError) {
            let opened: ImageFile
            do throws(ImageFileError) {
                opened = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
            } catch {
                throw .file(error)
            }
            guard opened.identity == file else { return false }
            return try !ImageHeader(reading: opened).header.needsCheck
        } catch {
            throw .chain(.image(error, backingOf: imagePath))
        }
    }

    private func replay(_ configuration: ServerConfiguration, _ registry: DeviceRegistry) throws(ServerError) -> Int {
        let chain: [LayerFile]
        do throws(ChainError) {
            chain = try ImageChain.open(path: path, isReadOnly: false, policy: configuration.backing, isDevices: true)
        } catch {
            throw .chain(error)
        }
        guard chain[0].file.identity == file else { throw .snapshotReplaced(path: path, image: imagePath) }
        let log: SessionFile
        do throws(RegistryError) { log = try SessionFile(image: file, registry: registry) } catch {
            throw .registry(error)
        }
        let options = ImageOptions(
            session: log.memory, continuesSession: true, keptLimitBytes: configuration.keptLimitBytes)
        let leftOut: Int
        do {
            let engine = try LocalEngine(chain: chain, options: options, depth: 1, largestRequestBytes: 1 << 20)
            leftOut = engine.image.leftOutChanges
            try engine.close()
        } catch let error as ImageOpenError {
            throw .image(path: path, error)
        } catch let error as RequestError {
            throw .notClosed(path: path, error.errno)
        } catch {
            throw .notClosed(path: path, error as? Errno ?? .ioError)
        }
        log.remove()
        return leftOut
    }
}
