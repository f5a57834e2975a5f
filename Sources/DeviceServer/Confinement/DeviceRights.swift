import BlockStorage
import Logging
import Platform
import Ublk

/// What a server does that takes rights which serving does not take. One that is confined has a broker for it.
protocol DeviceRights: AnyObject, Sendable {
    /// Whether the server has none of them itself.
    var isConfined: Bool { get }

    /// As `DiskWithdrawal.stop`.
    func stop(force: Bool, timeoutSeconds: Int) throws(ServerError) -> DiskUse?
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
    /// The image was closed well, and the disk waits for the next server.
    case left(ImageMark?)

    func apply(to record: inout DeviceRecord) {
        switch self {
        case .failed: record.hasFailed = true
        case .goesWhenUnused: record.goesWhenUnused = true
        case .left(let mark):
            record.leftImage = mark
            // A snapshot may have changed it.
            record.unsealedSnapshot = nil
        }
    }
}

/// A server that has its rights.
final class OwnRights: DeviceRights {
    private let withdrawal: DiskWithdrawal
    private let registry: DeviceRegistry

    init(_ withdrawal: DiskWithdrawal, _ registry: DeviceRegistry) {
        self.withdrawal = withdrawal
        self.registry = registry
    }

    let isConfined = false

    func stop(force: Bool, timeoutSeconds: Int) throws(ServerError) -> DiskUse? {
        try withdrawal.stop(force: force, timeoutSeconds: timeoutSeconds)
    }

    func isMachineGoingDown() -> Bool { MachineShutdown.isUnderWay }

    func flushDisk() -> [String] { OwnDiskProcess.write(.flush, ofDiskAt: withdrawal.path) }

    func note(_ note: DeviceNote, own: DeviceRecord) throws(ServerError) {
        do throws(RegistryError) { try registry.change(own) { note.apply(to: &$0) } } catch { throw .registry(error) }
    }

    func forgetDevice(isClosed: Bool) throws(ServerError) -> DiskWithdrawal.Remains { try withdrawal.forgetDevice() }
}
