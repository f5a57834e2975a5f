import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// An empty overlay that is about to be a device's image: made beside the one that is served, under a name that it has until
/// both get each other's, or that it keeps (`SnapshotNames`).
struct NextOverlay {
    let device: LiveDevice
    let names: SnapshotNames
    /// The image that is served.
    let image: Image
    let imageFile: ImageFile

    /// Its files, as long as nothing leads to it but the name that it was made under.
    struct Opened {
        let file: ImageFile
        let sessionFile: SessionFile
    }

    /// Makes it. Blocks until it is durable, with its name.
    /// - Parameters:
    ///   - backingName: of what it lies over, as its header says it.
    ///   - rollback: what the record says of the image that it replaces; nil: it lies over that.
    func make(
        over backingName: String, isRaw: Bool = false, rollback: RolledBackImage? = nil
    ) throws(SnapshotError) -> FileIdentity? {
        let (device, path) = (device, names.overlayPath)
        var identity: FileIdentity?
        do throws(ImageCreationError) {
            try OverlayFile(
                path: path, sizeBytes: image.sizeBytes, geometry: image.geometry, backingName: backingName,
                isOverRaw: isRaw, isForKeptReads: device.keepLimitBytes != nil, like: imageFile
            ).create { overlay throws(Errno) in
                identity = overlay
                // Before it has a name: the next server takes it away where this one does not live to.
                do throws(RegistryError) {
                    try device.note { record in
                        record.nextImage = overlay
                        record.nextSnapshot = path
                        record.rollback = rollback
                    }
                } catch {
                    throw error.errno
                }
            }
        } catch {
            if case .alreadyExists(let path) = error { throw .exists(path) }
            throw .cannot("\(error)")
        }
        return identity
    }

    /// It does not become the image: takes it away, and what the record says of it.
    /// - Parameter made: what `make` has returned; nil where it has not.
    func abandon(_ made: FileIdentity?) {
        // Whatever else has that name by now is somebody's.
        if let made, FileIdentity(ofFileAt: names.overlayPath) == made { unlink(names.overlayPath) }
        try? device.note { record in
            record.nextImage = nil
            record.nextSnapshot = nil
            record.rollback = nil
        }
    }

    /// Opens it to be served as the image is, with the memory for its log.
    func open() throws(SnapshotError) -> Opened {
        let file: ImageFile
        do throws(ImageFileError) {
            let isDirect = imageFile.alignment != .none
            file = try ImageFile(
                path: names.overlayPath, access: .readWrite, caching: isDirect ? .directWherePossible : .buffered,
                lock: .writable,
                // By the snapshot's name: another image names that one, which it must be able to.
                policy: names.areExchanged ? device.policy : nil)
            guard file.alignment.offsetBytes <= imageFile.alignment.offsetBytes || file.alignment == .none else {
                throw .cannotOpen(path: names.overlayPath, errno: .invalidArgument)
            }
        } catch {
            throw .cannot("\(error)")
        }
        do throws(RegistryError) {
            return Opened(file: file, sessionFile: try SessionFile(image: file.identity, registry: device.registry))
        } catch {
            throw .cannot("\(error)")
        }
    }

    func header(of opened: Opened) throws(SnapshotError) -> QEDHeader {
        do throws(ImageReadError) { return try ImageHeader(reading: opened.file).header } catch { throw .cannot("\(error)") }
    }
}
