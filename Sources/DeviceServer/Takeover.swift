import Ublk

/// What protects the kernel while a server takes a device over from one that has gone.
///
/// A driver before Linux 6.16 follows a null pointer, and the machine stops, in the START_USER_RECOVERY after one whose
/// server came to fetch every tag of one queue but not of another (`ublk_queue_reinit`); where it came to none, the driver
/// refuses. So the device's record says that a takeover is under way from before that command until END_USER_RECOVERY,
/// and a server that finds it said does not give the command.
struct Takeover {
    private let registry: DeviceRegistry
    private let id: UInt32
    private let canBeCutShort: Bool

    /// - Throws: `cutShort` where the command would stop the machine.
    init(of id: UInt32, _ registry: DeviceRegistry, driver: UblkFeatures?) throws(ServerError) {
        self.registry = registry
        self.id = id
        // It came with the same release as the change that resets a device when its server closes it.
        canBeCutShort = driver?.contains(.perIODaemon) == true
        if !canBeCutShort && registry.record(of: id)?.isBeingTakenOver == true { throw .cutShort(id: id) }
    }

    /// Before START_USER_RECOVERY.
    func begin() throws(ServerError) { try note(true) }

    /// After END_USER_RECOVERY, or when the first command was refused.
    func end() throws(ServerError) { try note(false) }

    private func note(_ isUnderWay: Bool) throws(ServerError) {
        guard !canBeCutShort, var record = registry.record(of: id) else { return }
        record.isBeingTakenOver = isUnderWay
        do { try registry.record(record) } catch { throw .registry(error) }
    }
}
