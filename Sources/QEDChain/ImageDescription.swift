import BlockStorage
import CSupport
import NBDStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// What an image says about itself, read without a lock and without opening its backing file.
public struct ImageDescription: Sendable {
    /// What is known about the backing file.
    public struct Backing: Sendable {
        /// What became of looking for it.
        public enum State: Sendable, Equatable {
            /// Something is there.
            case present(path: String)
            case missing(path: String)
            /// It cannot be seen whether it is there.
            case inaccessible(path: String, errno: Errno)
            /// The name is the address of a base elsewhere. Nobody was asked for it.
            case elsewhere(NBDAddress)
            /// The name is none of a file.
            case unusableName(BackingNameError)
        }

        public let name: BackingFileName
        /// Raw if the image declares so. Otherwise nil: the header has no word for other formats. Formats are never
        /// guessed here, so what is not declared raw has to be QED.
        public let declaredFormat: BackingFormat?
        public let state: State
    }

    /// The path it was read from.
    public let path: String
    public let header: QEDHeader
    /// Length of the file.
    public let fileSizeBytes: UInt64
    /// Space the file takes on its file system.
    public let allocatedBytes: UInt64
    public let backing: Backing?

    /// Reads the image at `path`. Blocks, but never for another program: no lock is taken or respected, so an image
    /// that is in use can be read too.
    public init(reading path: String) throws(ImageReadError) {
        let file: ImageFile
        do throws(ImageFileError) {
            file = try ImageFile(path: path, access: .readOnly, caching: .buffered, lock: nil)
        } catch {
            throw .file(error)
        }
        try self.init(of: file)
    }

    /// What the image in an open file says.
    public init(of file: ImageFile) throws(ImageReadError) {
        let path = file.path
        var status = cs_file_status()
        let identified = cs_status_of(file.descriptor, &status)
        guard identified == 0 else { throw .file(.cannotRead(path: path, errno: Errno(rawValue: -identified))) }

        let image = try ImageHeader(reading: file)
        self.path = path
        header = image.header
        fileSizeBytes = file.sizeBytes
        allocatedBytes = status.allocated_bytes
        backing = image.backingFileName.map { [header] name in
            Backing(
                name: name, declaredFormat: header.backingFileIsRaw ? .raw : nil,
                state: ImageDescription.find(name, ofImageAt: path))
        }
    }

    private static func find(_ name: BackingFileName, ofImageAt imagePath: String) -> Backing.State {
        if let address = try? name.address { return .elsewhere(address) }
        let path: String
        do throws(BackingNameError) {
            path = try name.path(inImageAt: imagePath)
        } catch {
            return .unusableName(error)
        }
        do throws(Errno) {
            _ = try Stat(FilePath(path))
            return .present(path: path)
        } catch .noSuchFileOrDirectory, .notDirectory {
            return .missing(path: path)
        } catch {
            return .inaccessible(path: path, errno: error)
        }
    }
}
