import Ublk

/// A name that does not say which device is meant.
public enum DeviceReferenceError: Error, Equatable, CustomStringConvertible {
    case notFound(String)
    case ambiguous(String, [UInt32])

    public var description: String {
        switch self {
        case .notFound(let device): "\(device): qed-ublk serves no such device; see 'qed-ublk list'"
        case .ambiguous(let image, let ids):
            "\(image) is served by \(ids.map(UblkPaths.blockDevice).joined(separator: " and ")); name the device"
        }
    }
}
