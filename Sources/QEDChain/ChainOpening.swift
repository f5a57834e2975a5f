import BlockStorage
import IOURing
import NBDStorage
import Platform
import QEDEngine
import QEDFormat

/// A layer of a chain, with where its bytes come from.
public struct LayerFile: Sendable {
    public let source: any LayerSource
    public let layer: Layer

    public init(file source: any LayerSource, layer: Layer) {
        self.source = source
        self.layer = layer
    }

    /// That of an image, which is always a file of this machine.
    public var file: ImageFile {
        guard let file = source as? ImageFile else { preconditionFailure("an image that is not a file of this machine") }
        return file
    }

    /// Entries of its L1 table, as far as its size needs them.
    var l1EntryCount: Int {
        guard case .qed(let header, _) = layer else { return 0 }
        return header.geometry.requiredL1Entries(imageSizeBytes: header.imageSizeBytes)
    }
}

extension [LayerFile] {
    /// Whether a chain with an overlay like the image over it could still be opened.
    public var hasRoomForOverlay: Bool {
        count < ImageChain.longestChain
            && reduce(self[0].l1EntryCount) { $0 + $1.l1EntryCount } <= ImageChain.largestL1EntryCount
    }

    /// What an engine's queue reads and writes on a ring.
    public func storages(on ring: Ring) -> ChainStorage<FileStorage> {
        ChainStorage(top: self[0].file.storage(on: ring), bases: dropFirst().map { $0.source.base(on: ring) })
    }
}

/// Which locks are taken on the files of a chain.
public enum ChainLocking: Sendable {
    /// All of them.
    case all
    /// Those of the files behind the image; whoever opens the chain holds the image's own.
    case backingFiles
    /// None, to read beside a program that may be changing the image.
    case none
}

/// Opens an image and the files behind it: by the names in their headers, and as nothing but plain local files.
///
/// A format is never guessed: a backing file is raw where the header says so, else it must be QED. Otherwise whoever can
/// write into a raw file could make it look like an image that names any file of the host.
public enum ImageChain {
    /// A longer one costs descriptors, and time when it is opened; a read costs what it costs without one (`ResolvedPages`).
    public static let longestChain = 1000

    /// Of the L1 tables of all files, which are held in memory (8 bytes an entry, and 16 of the image itself): two of the largest
    /// that there can be.
    public static let largestL1EntryCount = 1 << 22

    /// - Parameters:
    ///   - path: of the image.
    ///   - backingCaching: of every file behind it. Through the page cache one copy of a base serves all its overlays.
    ///   - opensBackingFiles: otherwise the chain ends with the image, and what lies beneath reads as zeros.
    ///   - policy: for the files that images name.
    ///   - isNamedByImage: the image itself is such a file.
    ///   - isDevices: the image is that of a device, which is to be served or closed.
    /// - Throws: also where a file that is only read belongs to a session that has not ended, unless it is read without
    ///   locks: what a dead server had acknowledged would be missing, and nobody would be told.
    /// - Returns: the image first. The image is locked for writing or reading, the others for reading.
    public static func open(
        path: String, isReadOnly: Bool, caching: ImageFile.Caching = .directWherePossible,
        backingCaching: ImageFile.Caching = .buffered, locking: ChainLocking = .all,
        opensBackingFiles: Bool = true, policy: BackingPolicy = .plainFiles, isNamedByImage: Bool = false,
        isDevices: Bool = false
    ) throws(ChainError) -> [LayerFile] {
        precondition(isReadOnly || locking != .none, "an image that is written is never shared")
        let readLock: FileLock? = locking == .none ? nil : .readOnly
        var (last, name) = try openQED(
            path: path, access: isReadOnly ? .readOnly : .readWrite, caching: caching,
            lock: locking != .all ? nil : isReadOnly ? .readOnly : .writable, backingOf: nil,
            policy: isNamedByImage ? policy : nil, isDevices: isDevices)
        if isReadOnly && locking == .all { try refuseUnfinished(last, backingOf: nil) }
        var files = [last]
        var l1EntryCount = last.l1EntryCount
        guard opensBackingFiles else { return files }
        while case .qed(let header, _) = last.layer, let backingName = name {
            let overlay = last.file.path
            guard !policy.refusesBackingFiles else { throw .backingRefused(path: overlay, name: backingName) }
            guard files.count < longestChain else { throw .tooLong(path: path) }
            if let address = try address(backingName, of: overlay, header, policy) {
                if policy.baseOpening == .leftOut { break }
                let export = try open(address, of: overlay, policy)
                files.append(LayerFile(file: export, layer: .raw(sizeBytes: export.sizeBytes)))
                break
            }
            let backingPath: String
            do { backingPath = try backingName.path(inImageAt: overlay) } catch {
                throw .backingName(path: overlay, error)
            }
            // Before it is opened: its lock would be refused because this very chain holds it.
            let identity = FileIdentity(ofFileAt: backingPath)
            guard !files.contains(where: { $0.source.identity == identity }) else {
                throw .loop(path: path, repeated: backingPath)
            }
            if header.backingFileIsRaw {
                let file = try openFile(
                    path: backingPath, access: .readOnly, caching: backingCaching, lock: readLock, backingOf: overlay,
                    allowBlockDevice: true, policy: policy)
                last = LayerFile(file: file, layer: .raw(sizeBytes: file.sizeBytes))
                name = nil
            } else {
                (last, name) = try openQED(
                    path: backingPath, access: .readOnly, caching: backingCaching, lock: readLock, backingOf: overlay,
                    policy: policy)
                if locking != .none { try refuseUnfinished(last, backingOf: overlay) }
            }
            l1EntryCount += last.l1EntryCount
            guard l1EntryCount <= largestL1EntryCount else { throw .tablesTooLarge(path: path) }
            files.append(last)
        }
        return files
    }

    /// The address that an image names; nil where it names a file.
    private static func address(
        _ name: BackingFileName, of overlay: String, _ header: QEDHeader, _ policy: BackingPolicy
    ) throws(ChainError) -> NBDAddress? {
        let address: NBDAddress?
        do throws(NBDAddressError) { address = try name.address } catch { throw .backingAddress(path: overlay, error) }
        guard let address else { return nil }
        guard header.backingFileIsRaw else { throw .backingFormatUnknown(path: address.text, backingOf: overlay) }
        do throws(ImageFileError) {
            guard try policy.allows(baseAt: address.text) else { throw .baseNotAllowed(path: address.text) }
        } catch {
            throw .image(.file(error), backingOf: overlay)
        }
        return address
    }

    private static func open(
        _ address: NBDAddress, of overlay: String, _ policy: BackingPolicy
    ) throws(ChainError) -> NBDExport {
        let known = policy.knownBase.flatMap { $0.address == address.text ? $0.sizeBytes : nil }
        do throws(NBDFailure) {
            return try NBDExport(
                address, known: known, isQuick: policy.baseOpening == .quick, timeout: policy.baseTimeoutNanoseconds)
        } catch {
            throw .image(.file(.baseUnusable(path: address.text, reason: error.description)), backingOf: overlay)
        }
    }

    private static func refuseUnfinished(_ opened: LayerFile, backingOf overlay: String?) throws(ChainError) {
        guard case .qed(let header, _) = opened.layer else { return }
        let isUnfinished: Bool
        do throws(ImageFileError) { isUnfinished = try opened.file.hasUnfinishedSession(header) } catch {
            throw .image(.file(error), backingOf: overlay)
        }
        guard !isUnfinished else { throw .unfinishedSession(path: opened.file.path, backingOf: overlay) }
    }

    private static func openQED(
        path: String, access: ImageFile.Access, caching: ImageFile.Caching, lock: FileLock?, backingOf overlay: String?,
        policy: BackingPolicy?, isDevices: Bool = false
    ) throws(ChainError) -> (LayerFile, BackingFileName?) {
        let file = try openFile(
            path: path, access: access, caching: caching, lock: lock, backingOf: overlay, policy: policy, isDevices: isDevices)
        do throws(ImageReadError) {
            let image = try ImageHeader(reading: file)
            // The last block must be whole to be read and written past the page cache, and so must a page of a table.
            let block = UInt64(file.alignment.offsetBytes)
            if image.header.imageSizeBytes % block != 0 || block > UInt64(QEDGeometry.l2PageSizeBytes) {
                do throws(ImageFileError) { try file.useBufferedIO() } catch { throw .file(error) }
            }
            let layer = Layer.qed(header: image.header, fileSizeBytes: file.sizeBytes)
            return (LayerFile(file: file, layer: layer), image.backingFileName)
        } catch {
            if let overlay, error == .format(path: path, .notQED) {
                throw .backingFormatUnknown(path: path, backingOf: overlay)
            }
            throw .image(error, backingOf: overlay)
        }
    }

    private static func openFile(
        path: String, access: ImageFile.Access, caching: ImageFile.Caching, lock: FileLock?, backingOf overlay: String?,
        allowBlockDevice: Bool = false, policy: BackingPolicy?, isDevices: Bool = false
    ) throws(ChainError) -> ImageFile {
        do throws(ImageFileError) {
            return try ImageFile(
                path: path, access: access, caching: caching, lock: lock, allowBlockDevice: allowBlockDevice,
                policy: policy, isDevices: isDevices)
        } catch {
            throw .image(.file(error), backingOf: overlay)
        }
    }
}

/// A chain that cannot be opened. Nothing has been changed, and nothing stays locked.
public enum ChainError: Error, Equatable, CustomStringConvertible {
    case image(ImageReadError, backingOf: String?)
    case backingFormatUnknown(path: String, backingOf: String)
    case backingName(path: String, BackingNameError)
    case backingAddress(path: String, NBDAddressError)
    /// The user wants no backing file to be opened.
    case backingRefused(path: String, name: BackingFileName)
    case loop(path: String, repeated: String)
    case tooLong(path: String)
    case tablesTooLarge(path: String)
    /// A file that would be read without what its dead server had acknowledged.
    case unfinishedSession(path: String, backingOf: String?)

    public var description: String {
        switch self {
        case .image(let error, nil): "\(error)"
        case .image(let error, let overlay?): "\(error) (it is the backing file of \(overlay))"
        case .backingFormatUnknown(let path, let overlay):
            "\(path): the backing file of \(overlay) is not a QED image, and the image does not say that it is raw; "
                + "if it is, say so: qed-ublk rebase -u -b \(path) -F raw \(overlay)"
        case .backingName(let path, let error): "\(path): \(error)"
        case .backingAddress(let path, let error): "\(path): names its base by \(error)"
        case .backingRefused(let path, let name):
            "\(path): needs its backing file \(name.text), and --no-backing allows none"
        case .loop(let path, let repeated): "\(path): its backing files form a loop: \(repeated) comes up twice"
        case .tooLong(let path):
            "\(path): a chain of more than \(ImageChain.longestChain) files, each the backing file of the one before"
        case .tablesTooLarge(let path):
            "\(path): the L1 tables of its chain have more than \(ImageChain.largestL1EntryCount) entries, which is more than "
                + "any sensible chain needs"
        case .unfinishedSession(let path, let overlay):
            "\(path): \(ImageOpenError.unfinishedSession); --force-share reads what is there without them"
                + (overlay.map { " (it is the backing file of \($0))" } ?? "")
        }
    }
}
