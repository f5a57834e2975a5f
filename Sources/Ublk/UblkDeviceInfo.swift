import CSupport

/// The life of a device, as the driver sees it.
public enum UblkDeviceState: Equatable, Sendable {
    /// Not started, stopped, or its server died without recovery.
    case dead
    /// Served; for a while also after its server's death, until the driver notices.
    case live
    /// Its server is gone; requests wait for another one.
    case quiesced
    /// Its server is gone; requests fail until there is another one (6.13).
    case failingIO
    /// A state newer than this program.
    case other(UInt16)

    public init(rawValue: UInt16) {
        switch rawValue {
        case CS_UBLK_S_DEV_DEAD: self = .dead
        case CS_UBLK_S_DEV_LIVE: self = .live
        case CS_UBLK_S_DEV_QUIESCED: self = .quiesced
        case CS_UBLK_S_DEV_FAIL_IO: self = .failingIO
        default: self = .other(rawValue)
        }
    }

    /// Whether `startRecovery` is possible.
    public var isRecoverable: Bool { self == .quiesced || self == .failingIO }
}

extension UblkDeviceState: CustomStringConvertible {
    public var description: String {
        switch self {
        case .dead: "dead"
        case .live: "live"
        case .quiesced: "quiesced"
        case .failingIO: "failing I/O"
        case .other(let value): "unknown (\(value))"
        }
    }
}

/// A device as negotiated with the driver. Size everything by these values, not by what was asked for: the driver caps
/// the queues to the number of processors and rounds the I/O size down to a page.
public struct UblkDeviceInfo: Equatable, Sendable {
    public var id: UInt32
    public var state: UblkDeviceState
    public var queueCount: Int
    /// Tags per queue.
    public var queueDepth: Int
    /// The largest data of one request.
    public var maxIOSizeBytes: Int
    public var features: UblkFeatures
    /// The server's process id in our namespace; 0 or less: none, or none that we can see. Linux 6.12 still names a
    /// server that has died.
    public var serverProcess: Int32
    /// 64 bits that the driver keeps for the server.
    public var serverFlags: UInt64
    public var ownerUser: UInt32
    public var ownerGroup: UInt32

    /// Whether the driver hands out the requests' pages instead of copying their data.
    public var isZeroCopy: Bool { features.contains(.servesPages) }
    /// Of all I/O buffers: what its server has in memory where the driver copies, and at most where it does not.
    public var bufferBytes: Int { queueCount * queueDepth * maxIOSizeBytes }

    init(_ info: cs_ublk_device_info) {
        id = info.dev_id
        state = UblkDeviceState(rawValue: info.state)
        queueCount = Int(info.nr_hw_queues)
        queueDepth = Int(info.queue_depth)
        maxIOSizeBytes = Int(info.max_io_buf_bytes)
        features = UblkFeatures(rawValue: info.flags)
        serverProcess = info.ublksrv_pid
        serverFlags = info.ublksrv_flags
        ownerUser = info.owner_uid
        ownerGroup = info.owner_gid
    }
}

/// The three nodes of a device under /dev.
public enum UblkPaths {
    /// Where devices are added, started, stopped and deleted.
    public static let control = "/dev/ublk-control"
    /// Where the server fetches requests. Appears when the device is added.
    public static func characterDevice(_ id: UInt32) -> String { "/dev/ublkc\(id)" }
    /// The disk. Appears when the device is started.
    public static func blockDevice(_ id: UInt32) -> String { "/dev/ublkb\(id)" }
    /// The device whose disk that is; nil for any other path.
    public static func deviceID(ofBlockDevice path: String) -> UInt32? {
        guard path.hasPrefix("/dev/ublkb"), let id = UInt32(path.dropFirst("/dev/ublkb".count)), blockDevice(id) == path else {
            return nil
        }
        return id
    }
}
