import BlockStorage
import NBDStorage
import QEDEngine
import QEDFormat
import SystemPackage

/// Why an image was not created.
public enum ImageCreationError: Error, Sendable, Equatable {
    case alreadyExists(path: String)
    /// What exists is in use, or no file.
    case cannotReplace(ImageFileError)
    /// What exists is an image with writes that only its dead server's log has.
    case unfinishedSession(path: String)
    /// There is neither a size nor a backing file to take one from.
    case sizeMissing(path: String)
    /// No valid header could say what was asked for.
    case cannotBeDescribed(path: String, QEDFormatError)
    /// QEMU could not open such an image, and that was not asked for.
    case qemuCannotOpen(path: String, QEMULimitation)
    case backingName(path: String, BackingNameError)
    case baseAddress(NBDAddressError)
    /// The backing file is missing, not accessible, or not what it is said to be.
    case backingFile(ImageReadError)
    case directoryNotFound(path: String)
    case noPermission(path: String)
    /// `step` says what failed.
    case failed(path: String, step: String, errno: Errno)

    init(path: String, _ failure: NewFile.Failure) {
        switch (failure.step, failure.errno) {
        case (.own, _): self = .failed(path: path, step: failure.step.rawValue, errno: failure.errno)
        case (_, .fileExists): self = .alreadyExists(path: path)
        case (.openDirectory, .noSuchFileOrDirectory), (.openDirectory, .notDirectory):
            self = .directoryNotFound(path: path)
        case (.replace, let errno): self = .failed(path: path, step: failure.step.rawValue, errno: errno)
        case (_, .permissionDenied), (_, .notPermitted), (_, .readOnlyFileSystem): self = .noPermission(path: path)
        default: self = .failed(path: path, step: failure.step.rawValue, errno: failure.errno)
        }
    }
}

extension ImageCreationError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .alreadyExists(let path):
            "\(path): already exists; remove it or choose another name, or replace it with --force"
        case .cannotReplace(let error): error.description
        case .unfinishedSession(let path):
            "\(path): \(ImageOpenError.unfinishedSession); remove the file if nothing of it is wanted any more"
        case .sizeMissing(let path):
            "\(path): an image without a backing file needs a size, such as 20G"
        case .cannotBeDescribed(let path, let error):
            "\(path): cannot create such an image: \(error.fault)"
        case .qemuCannotOpen(let path, let limitation):
            "\(path): \(limitation); choose another cluster or table size, or use --force if QEMU shall never open it"
        case .backingName(let path, let error):
            "\(path): \(error)"
        case .baseAddress(let error): error.description
        case .backingFile(let error):
            "backing file \(error)"
        case .directoryNotFound(let path):
            "\(path): its directory does not exist; create it first"
        case .noPermission(let path):
            "\(path): no permission to create a file there"
        case .failed(let path, let step, let errno):
            "\(path): \(step): \(errno)"
        }
    }
}
