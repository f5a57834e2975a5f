import BlockStorage
import Glibc
import Logging
import Platform
import Ublk

/// What a server does that takes rights which serving does not take. One that is confined has a broker for it.
protocol DeviceRights: AnyObject, Sendable {
    /// Whether the server has none of them itself.
    var isConfined: Bool { get }

    /// As `DiskArrival.describe`, `start` and `endRecovery`.
    func describe(_ shape: DiskShape) throws(ServerError)
    func start() throws(ServerError) -> [String]
    func endRecovery() throws(ServerError)
    /// As `DiskArrival.sizeBytes` and `grow`.
    func diskSizeBytes() throws(ServerError) -> UInt64
    func growDisk(to sizeBytes: UInt64) throws(ServerError)
    /// As `DiskWithdrawal.stop`.
    func stop(force: Bool, timeoutSeconds: Int, onceWritten: () -> Void) throws(ServerError) -> DiskUse?
    /// As `MachineShutdown.isUnderWay`.
    func isMachineGoingDown() -> Bool
    /// Has what is dirty in the page caches of the disk written.
    /// - Returns: what could not be, in sentences.
    func flushDisk() -> [String]
    /// Changes what the device's record says.
    /// - Parameter own: what it says where it is gone.
    func note(_ note: DeviceNote, own: DeviceRecord) throws(ServerError)
    /// Deletes the device, whose disk is gone; nobody serves it any more. Where the server is confined also its record, socket
    /// and log.
    /// - Parameter isClosed: the image was closed well.
    func forgetDevice(isClosed: Bool) throws(ServerError) -> DiskWithdrawal.Remains
}

/// What a server has to say of its device, for the next one and for `list`.
enum DeviceNote: Equatable, Sendable {
    /// A sync of the image has failed.
    case failed
    case goesWhenUnused
    /// Whether the image's file is accessed past the page cache.
    case access(isDirect: Bool)
    /// The image is about to have that size, which its disk has not yet; nil: both have it.
    case grows(toBytes: UInt64?)
    /// The image was closed well, and the disk waits for the next server.
    case left(ImageMark?)

    func apply(to record: inout DeviceRecord) {
        switch self {
        case .failed: record.hasFailed = true
        case .goesWhenUnused: record.goesWhenUnused = true
        case .access(let isDirect): record.isDirect = isDirect
        case .grows(let sizeBytes): record.nextSizeBytes = sizeBytes
        case .left(let mark):
            record.leftImage = mark
            // A snapshot may have changed it.
            record.unsealedSnapshot = nil
        }
    }
}

/// A server that has its rights.
final class OwnRights: DeviceRights {
    private let arrival: DiskArrival
    private let withdrawal: DiskWithdrawal
    private let registry = DeviceRegistry()

    init(of info: UblkDeviceInfo, _ control: UblkControlDevice, _ configuration: ServerConfiguration, log: Logger) {
        arrival = DiskArrival(
            of: info, control, serverProcess: getpid(), isReadOnly: configuration.isReadOnly,
            scansPartitions: configuration.scansPartitions, name: configuration.name, link: configuration.link)
        withdrawal = DiskWithdrawal(of: info, control, log: log)
    }

    let isConfined = false

    func describe(_ shape: DiskShape) throws(ServerError) { try arrival.describe(shape) }

    func start() throws(ServerError) -> [String] { try arrival.start() }

    func endRecovery() throws(ServerError) { try arrival.endRecovery() }

    func diskSizeBytes() throws(ServerError) -> UInt64 { try arrival.sizeBytes() }

    func growDisk(to sizeBytes: UInt64) throws(ServerError) { try arrival.grow(to: sizeBytes) }

    func stop(force: Bool, timeoutSeconds: Int, onceWritten: () -> Void) throws(ServerError) -> DiskUse? {
        try withdrawal.stop(force: force, timeoutSeconds: timeoutSeconds, onceWritten: onceWritten)
    }

    func isMachineGoingDown() -> Bool { MachineShutdown.isUnderWay }

    func flushDisk() -> [String] { OwnDiskProcess.write(.flush, ofDiskAt: withdrawal.path) }

    func note(_ note: DeviceNote, own: DeviceRecord) throws(ServerError) {
        do throws(RegistryError) { try registry.change(own) { note.apply(to: &$0) } } catch { throw .registry(error) }
    }

    func forgetDevice(isClosed: Bool) throws(ServerError) -> DiskWithdrawal.Remains { try withdrawal.forgetDevice() }
}
