import BlockStorage
import QEDEngine
import QEDFormat

/// Why a file cannot be read as a QED image.
public enum ImageReadError: Error, Sendable, Equatable {
    case file(ImageFileError)
    case format(path: String, QEDFormatError)
}

extension ImageReadError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .file(let error): error.description
        case .format(let path, let error): "\(path) \(error)"
        }
    }
}

/// A header and the backing file name it points at.
public struct ImageHeader: Sendable, Hashable {
    public let header: QEDHeader
    /// Nil if the image has no backing file.
    public let backingFileName: BackingFileName?

    /// Reads and checks both. Blocks; memory and time are bounded whatever the file holds.
    public init(reading file: ImageFile) throws(ImageReadError) {
        do {
            let start = try file.readBytes(byteCount: QEDLimits.headerSizeBytes)
            header = try QEDHeader(parsing: start, fileSizeBytes: file.sizeBytes)
            guard let range = header.backingFileNameRange else {
                backingFileName = nil
                return
            }
            let name = try file.readBytes(fileOffset: range.fileOffset, byteCount: range.sizeBytes)
            // The header area lies before the L1 table, inside the file: only a file cut meanwhile can end here.
            guard name.count == range.sizeBytes else { throw ImageFileError.changedWhileOpening(path: file.path) }
            backingFileName = try BackingFileName(name)
        } catch let error as QEDFormatError {
            throw .format(path: file.path, error)
        } catch let error as ImageFileError {
            throw .file(error)
        } catch {
            preconditionFailure("an error of an unknown type: \(error)")
        }
    }
}
