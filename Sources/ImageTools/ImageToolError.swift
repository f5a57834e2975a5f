import BlockStorage
import IOURing
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// Why a tool did not do its work. Unless the text says otherwise nothing was changed.
public enum ImageToolError: Error, Equatable, Sendable {
    case read(ImageReadError)
    case chain(ChainError)
    case open(path: String, ImageOpenError)
    case storage(path: String, StorageError)
    /// A request to an open image failed.
    case request(path: String, String, deviceOffset: UInt64, Errno)
    /// A table entry that cannot be right stands where the work has to go.
    case corruptEntry(path: String, deviceOffset: UInt64)
    case noRing(Errno)
    /// What was asked for contradicts the image; `reason` completes the sentence that starts with the path.
    case refused(path: String, reason: String)
    /// The file exists, and is not to be overwritten.
    case exists(path: String)
    case cannotCreate(ImageCreationError)
    /// The copy differs from its source.
    case verificationFailed(path: String, deviceOffset: UInt64)
}

extension ImageToolError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .read(let error): "\(error)"
        case .chain(let error): "\(error)"
        case .open(let path, let error): "\(path): \(error)"
        case .storage(let path, let error): "\(path): \(error)"
        case .request(let path, let operation, let deviceOffset, let errno):
            "\(path): \(operation) at offset \(deviceOffset) failed: \(errno)"
        case .corruptEntry(let path, let deviceOffset):
            "\(path): the table entry for guest offset \(deviceOffset) cannot be right; see 'qed-ublk check'"
        case .noRing(let errno): "\(RingRefusal.diagnosis(errno))"
        case .refused(let path, let reason): "\(path): \(reason)"
        case .exists(let path):
            "\(path): already exists; remove it, choose another name, or overwrite it with --force"
        case .cannotCreate(let error): "\(error)"
        case .verificationFailed(let path, let deviceOffset):
            "\(path): what was written reads back differently at offset \(deviceOffset); do not trust this disk"
        }
    }
}
