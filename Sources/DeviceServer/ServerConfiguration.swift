import BlockStorage
import QEDEngine
import SystemPackage
import Ublk

/// What a device is to be: the options of `add`.
public struct ServerConfiguration: Sendable {
    public var imagePath: String
    public var isReadOnly = false
    /// For the backing files, which images name.
    public var backing = BackingPolicy.plainFiles
    /// Hardware queues; the driver caps them to the number of processors.
    public var queues = 1
    /// Requests that a queue can have under way.
    public var queueDepth = 128
    /// nil lets the driver choose.
    public var deviceID: UInt32?
    /// The largest request, and the size of each tag's buffer.
    public var maxIOSizeBytes = 512 << 10

    public init(imagePath: String) { self.imagePath = imagePath }
}

/// Why a device could not be served. Nothing is left behind: no device, no lock, no file.
public enum ServerError: Error, CustomStringConvertible {
    case chain(ChainError)
    case image(path: String, ImageOpenError)
    case emptyImage(path: String)
    case control(UblkControlError)
    case characterDevice(UblkOpenError)
    case registry(RegistryError)
    case socket(ControlSocketError)
    case queue(number: Int, reason: String)
    case ring(Errno)
    case notUsable(path: String, Errno)
    /// The device is gone, but not everything that was written has reached the image.
    case notClosed(path: String, Errno)

    public var description: String {
        switch self {
        case .chain(let error): "\(error)"
        case .image(let path, let error): "\(path): \(error)"
        case .emptyImage(let path): "\(path): its size is 0, and a block device cannot be empty; give it a size first"
        case .control(let error): "\(error)"
        case .characterDevice(let error): "\(error)"
        case .registry(let error): "\(error)"
        case .socket(let error): "\(error)"
        case .queue(let number, let reason): "queue \(number) cannot be set up: \(reason)"
        case .ring(let errno):
            switch errno {
            case .noFunction, .notPermitted:
                "this system does not let programs use io_uring (\(errno)); see sysctl kernel.io_uring_disabled"
            case .noMemory: "no memory for an io_uring; raise the limit of locked memory (ulimit -l)"
            default: "io_uring cannot be set up: \(errno)"
            }
        case .notUsable(let path, let errno):
            "\(path) was made but cannot be opened (\(errno)); see that this /dev is a devtmpfs"
        case .notClosed(let path, let errno):
            "\(path): the last writes did not reach the disk (\(errno)); the image will be checked when it is next opened"
        }
    }
}
