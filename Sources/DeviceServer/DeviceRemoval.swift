import SystemPackage
import Ublk

extension UblkControlDevice {
    /// Deletes a device that nobody serves any more. From then on it does not exist for anybody; only its number stays
    /// taken as long as somebody has its disk open or mounted, and that is not waited for.
    /// - Returns: false when somebody still has.
    public func forgetDevice(_ id: UInt32) throws(UblkControlError) -> Bool {
        do throws(UblkControlError) {
            try deleteDevice(id, timeout: .seconds(3))
            return true
        } catch .timedOut {
            return false
        } catch .refused(_, _, .operationNotSupportedByDevice) {
            // ENODEV: somebody else has deleted it already.
            return true
        }
    }
}
