import BlockStorage
import NBDStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// A new image, described: what to make, and where.
public struct ImageCreation: Sendable {
    /// The file an overlay takes its unwritten clusters from.
    public struct Backing: Sendable {
        /// As the user names it; if relative, from the directory of the overlay.
        public var name: String
        public var format: BackingFormat

        public init(name: String, format: BackingFormat) {
            self.name = name
            self.format = format
        }
    }

    /// The new image's path. Nothing may exist there, unless `replacesExisting`.
    public var path: String
    /// Size of the device in bytes, rounded up to a multiple of 512. Nil takes the size of the backing file.
    public var sizeBytes: UInt64?
    public var geometry: QEDGeometry
    public var backing: Backing?
    /// Whether to make an image that QEMU would refuse to open.
    public var allowsWhatQEMUCannotOpen: Bool
    /// Whether a file of that name may be replaced. One that another program has open as an image is never.
    public var replacesExisting = false

    public init(
        path: String, sizeBytes: UInt64? = nil, geometry: QEDGeometry = .standard, backing: Backing? = nil,
        allowsWhatQEMUCannotOpen: Bool = false
    ) {
        self.path = path
        self.sizeBytes = sizeBytes
        self.geometry = geometry
        self.backing = backing
        self.allowsWhatQEMUCannotOpen = allowsWhatQEMUCannotOpen
    }

    /// Makes the image: header area, backing file name and an empty L1 table, which is a hole in the file.
    ///
    /// Blocks until the image is durable. Whatever is thrown, nothing was left behind or changed.
    /// - Returns: the header of the new image.
    public func create() throws(ImageCreationError) -> QEDHeader {
        if let limitation = geometry.qemuLimitation, limitation.preventsOpening, !allowsWhatQEMUCannotOpen {
            throw .qemuCannotOpen(path: path, limitation)
        }
        guard !exists || replacesExisting else { throw .alreadyExists(path: path) }
        // Held until it has been replaced.
        let replaced = exists ? try openReplaced() : nil
        defer { withExtendedLifetime(replaced) {} }
        let base = try backing.map { backing throws(ImageCreationError) in try open(backing) }
        guard let requestedSizeBytes = sizeBytes ?? base?.sizeBytes else { throw .sizeMissing(path: path) }

        let header: QEDHeader
        do throws(QEDFormatError) {
            header = try QEDHeader(
                newImageOfSizeBytes: try roundedUp(requestedSizeBytes), geometry: geometry,
                backingFile: base.map { ($0.name, $0.isRaw) })
        } catch {
            throw .cannotBeDescribed(path: path, error)
        }

        var file = NewFile(
            path: FilePath(try place(of: replaced)), firstBytes: header.encoded() + (base?.name.bytes ?? []),
            sizeBytes: Int64(header.l1TableFileOffset + geometry.tableSizeBytes))
        file.replacesExisting = replaced != nil
        do throws(Errno) {
            file.ownership = try replaced.map { file throws(Errno) in try FileOwnership(of: file.descriptor) }
        } catch {
            throw .cannotReplace(.cannotRead(path: path, errno: error))
        }
        do throws(NewFile.Failure) {
            try file.create()
        } catch {
            throw ImageCreationError(path: path, error)
        }
        return header
    }

    /// Whether the path names anything, were it a symbolic link that leads nowhere. Only to say so before anything
    /// else is looked at: what counts is that the file gets its name only if that is free.
    package var exists: Bool {
        do {
            _ = try Stat(FilePath(path), followTargetSymlink: false)
            return true
        } catch {
            return false
        }
    }

    private func openReplaced() throws(ImageCreationError) -> ImageFile {
        let file: ImageFile
        let isUnfinished: Bool
        do throws(ImageFileError) {
            file = try ImageFile(path: path, access: .readWrite, caching: .buffered, lock: .writable)
            isUnfinished = try file.isUnfinishedImage()
        } catch {
            throw .cannotReplace(error)
        }
        guard !isUnfinished else { throw .unfinishedSession(path: path) }
        return file
    }

    /// Where a file that is replaced really is: a symbolic link stays, and leads to the new one.
    private func place(of replaced: ImageFile?) throws(ImageCreationError) -> String {
        guard let replaced else { return path }
        do throws(ImageFileError) { return try AbsolutePath.ofReplaced(path, openedAs: replaced) } catch {
            throw .cannotReplace(error)
        }
    }

    private func roundedUp(_ bytes: UInt64) throws(QEDFormatError) -> UInt64 {
        guard bytes <= geometry.maximumImageSizeBytes
        else { throw .imageSizeTooLarge(bytes: bytes, maximumBytes: geometry.maximumImageSizeBytes) }
        return (bytes + QEDLimits.sectorSizeBytes - 1) / QEDLimits.sectorSizeBytes * QEDLimits.sectorSizeBytes
    }
}

// MARK: - Backing file

extension ImageCreation {
    private struct Base {
        let name: BackingFileName
        let isRaw: Bool
        let sizeBytes: UInt64
    }

    /// Finds the backing file where the finished overlay would, and checks that it is what its user says.
    private func open(_ backing: Backing) throws(ImageCreationError) -> Base {
        if NBDAddress.isMeant(by: backing.name) { return try open(baseAt: backing.name) }
        let name: BackingFileName
        do throws(QEDFormatError) {
            name = try BackingFileName(storing: backing.name)
        } catch {
            throw .cannotBeDescribed(path: path, error)
        }
        let basePath: String
        do throws(BackingNameError) {
            basePath = try name.path(inImageAt: path)
        } catch {
            throw .backingName(path: path, error)
        }
        let file: ImageFile
        do throws(ImageFileError) {
            file = try ImageFile(
                path: basePath, access: .readOnly, caching: .buffered, lock: nil,
                allowBlockDevice: backing.format == .raw)
        } catch {
            throw .backingFile(.file(error))
        }
        switch backing.format {
        case .raw:
            return Base(name: name, isRaw: true, sizeBytes: file.sizeBytes)
        case .qed:
            do throws(ImageReadError) {
                let base = try ImageHeader(reading: file)
                return Base(name: name, isRaw: false, sizeBytes: base.header.imageSizeBytes)
            } catch {
                throw .backingFile(error)
            }
        }
    }

    /// Asks a base elsewhere how large it is: the user has named it himself.
    private func open(baseAt text: String) throws(ImageCreationError) -> Base {
        let address: NBDAddress
        do throws(NBDAddressError) { address = try NBDAddress(text) } catch { throw .baseAddress(error) }
        let export: NBDExport
        do throws(NBDFailure) { export = try NBDExport(address, isQuick: true, timeout: nil) } catch {
            throw .backingFile(.file(.baseUnusable(path: text, reason: error.description)))
        }
        let name: BackingFileName
        do throws(QEDFormatError) { name = try BackingFileName(Array(text.utf8)) } catch {
            throw .cannotBeDescribed(path: path, error)
        }
        return Base(name: name, isRaw: true, sizeBytes: export.sizeBytes)
    }
}
