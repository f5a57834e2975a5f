import BlockStorage
import Platform
import QEDEngine
import QEDFormat
import SystemPackage

/// An empty overlay that is to take the place of an image.
public struct OverlayFile {
    private let path: String
    private let sizeBytes: UInt64
    private let geometry: QEDGeometry
    private let backingName: String
    private let isOverRaw: Bool
    private let isForKeptReads: Bool
    private let image: ImageFile

    /// - Parameters:
    ///   - path: nothing is there.
    ///   - backingName: of what it lies over, as the overlay stores it: it need not be that file's name yet.
    ///   - isOverRaw: that is a raw file.
    ///   - isForKeptReads: it gets nothing but those (`QEDAutoclearFeatures.keptReads`).
    ///   - image: the overlay belongs to whom it belongs to, with the same rights.
    public init(
        path: String, sizeBytes: UInt64, geometry: QEDGeometry, backingName: String, isOverRaw: Bool = false,
        isForKeptReads: Bool = false, like image: ImageFile
    ) {
        self.path = path
        self.sizeBytes = sizeBytes
        self.geometry = geometry
        self.backingName = backingName
        self.isOverRaw = isOverRaw
        self.isForKeptReads = isForKeptReads
        self.image = image
    }

    /// Makes it. Blocks until it is durable, with its name.
    /// - Parameter willBeNamed: called before the file can be found: from then on somebody has to know of it, who takes it away
    ///   again where this process does not live to do so.
    /// - Throws: whatever is thrown, nothing was left behind or changed.
    public func create(willBeNamed: @escaping (FileIdentity) throws(Errno) -> Void) throws(ImageCreationError) {
        let name: BackingFileName
        var header: QEDHeader
        do throws(QEDFormatError) {
            name = try BackingFileName(storing: backingName)
            header = try QEDHeader(newImageOfSizeBytes: sizeBytes, geometry: geometry, backingFile: (name, isOverRaw))
        } catch {
            throw .cannotBeDescribed(path: path, error)
        }
        header.hasOnlyKeptReads = isForKeptReads
        var file = NewFile(
            path: FilePath(path), firstBytes: header.encoded() + name.bytes,
            sizeBytes: Int64(header.l1TableFileOffset + geometry.tableSizeBytes))
        do throws(Errno) { file.ownership = try FileOwnership(of: image.descriptor) } catch {
            throw .cannotReplace(.cannotRead(path: image.path, errno: error))
        }
        file.willBeNamed = { descriptor throws(Errno) in try willBeNamed(FileIdentity(descriptor: descriptor)) }
        do throws(NewFile.Failure) { try file.create() } catch { throw ImageCreationError(path: path, error) }
    }
}
