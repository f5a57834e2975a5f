import Logging
import Platform
import Ublk

/// What a device's record says while a server takes the device over from one that has gone.
///
/// From before the first write to the image the record names the new server, and does not say any more how the last one left
/// the image: killed at any later moment, the next server finds the image as after a kill, not as written by a stranger.
///
/// It also protects the kernel. A driver before Linux 6.16 follows a null pointer, and the machine stops, in the
/// START_USER_RECOVERY after one whose server came to fetch every tag of one queue but not of another (`ublk_queue_reinit`);
/// where it came to none, the driver refuses. So the record says that a takeover is under way from before that command until
/// END_USER_RECOVERY, and a server that finds it said does not give the command.
final class Takeover {
    private let registry: DeviceRegistry
    private let id: UInt32
    let canBeCutShort: Bool
    private var state = State.waiting

    private enum State {
        case waiting
        /// The image may be changed; the driver knows nothing yet, or has refused.
        case opened(DeviceRecord)
        /// Between the driver's two commands. What is to be said after them is written by now: there may be no space then.
        case underWay(DeviceRecord, then: PreparedRecord?)
        case done
    }

    /// - Parameter serverProcess: the last one that the driver knows.
    /// - Throws: `cutShort` where the command would stop the machine.
    init(
        of id: UInt32, _ registry: DeviceRegistry, driver: UblkFeatures?, serverProcess: Int32
    ) throws(ServerError) {
        self.registry = registry
        self.id = id
        canBeCutShort = Takeover.isSafe(driver)
        if let record = registry.record(of: id), Takeover.wasCutShort(record, driver: driver, serverProcess: serverProcess) {
            throw .cutShort(id: id)
        }
    }

    /// Whether the last server of a device that waits ended in its takeover, and with this driver there can be no other.
    static func wasCutShort(_ record: DeviceRecord, driver: UblkFeatures?, serverProcess: Int32) -> Bool {
        // The driver has learned of that server in END_USER_RECOVERY, or not at all.
        !isSafe(driver) && record.isBeingTakenOver && record.server.id != serverProcess
    }

    static func cutShort(_ id: UInt32) -> Diagnosis {
        Diagnosis(
            "the last server that was to take over \(UblkPaths.blockDevice(id)) ended before it could, and this kernel (before "
                + "Linux 6.16) may crash if another one tries",
            remedy: "remove the device with 'qed-ublk del --force \(id)', and add the image again")
    }

    /// It came with the same release as the change that resets a device when its server closes it.
    private static func isSafe(_ driver: UblkFeatures?) -> Bool { driver?.contains(.perIODaemon) == true }

    /// Before the image is changed, and after it was found to be as the last server has left it.
    /// - Parameter record: that of this server.
    func open(_ record: DeviceRecord) throws(ServerError) {
        guard case .waiting = state else { preconditionFailure("an image is opened once") }
        precondition(record.deviceID == id && record.leftImage == nil && !record.isBeingTakenOver)
        do { try registry.record(record) } catch { throw .registry(error) }
        state = .opened(record)
    }

    /// Before START_USER_RECOVERY.
    /// - Parameter endsElsewhere: when it has come to its end, somebody else says so: the server may not write any more then.
    func begin(endsElsewhere: Bool = false) throws(ServerError) {
        guard case .opened(let record) = state else { preconditionFailure("the image is not open") }
        guard !canBeCutShort else {
            state = .underWay(record, then: nil)
            return
        }
        var marked = record
        marked.isBeingTakenOver = true
        do throws(RegistryError) {
            try registry.record(marked)
            state = .underWay(record, then: endsElsewhere ? nil : try registry.prepare(record))
        } catch {
            throw .registry(error)
        }
    }

    /// The driver has refused START_USER_RECOVERY: nothing has begun.
    func refused() {
        guard case .underWay(let record, let prepared) = state else { preconditionFailure("nothing is under way") }
        prepared?.put()
        state = .opened(record)
    }

    /// After END_USER_RECOVERY: from now on requests come.
    /// - Returns: the record as it is now.
    func end() -> DeviceRecord {
        guard case .underWay(let record, let prepared) = state else { preconditionFailure("nothing is under way") }
        prepared?.put()
        state = .done
        return record
    }

    /// The device goes on waiting, and this server has closed the image again.
    /// - Parameter mark: how; nil where it could not be closed.
    func giveUp(leaving mark: ImageMark?) {
        var left: DeviceRecord
        switch state {
        case .waiting, .done: return
        case .opened(let record): left = record
        case .underWay(let record, let prepared):
            left = record
            left.isBeingTakenOver = !canBeCutShort
            prepared?.discard()
        }
        left.leftImage = mark
        // Without space the record stays: what it says of the image holds, though less of it.
        try? registry.record(left)
    }
}
