import SystemPackage
import Ublk

extension UblkControlDevice {
    /// Takes a device's disk away, unless it is in use: by the kernel's word where it gives that (TRY_STOP, Linux 7.0), else
    /// while the disk is had exclusively, so that nobody can mount it any more.
    /// - Parameter hold: where the caller has it by now. It is given up.
    /// - Returns: who uses it, when nothing was done for that reason; nil when it is gone.
    func stopUnused(_ info: UblkDeviceInfo, _ hold: DiskHold? = nil) throws(UblkControlError) -> DiskUse? {
        let path = UblkPaths.blockDevice(info.id)
        var hold = hold
        defer { hold?.release() }
        do throws(UblkControlError) {
            guard !info.features.contains(.safeStop) else {
                // The kernel counts who has it open.
                hold?.release()
                try tryStopDevice(info.id, timeout: UblkControlDevice.stopTimeout)
                return nil
            }
            if hold == nil { do throws(DiskUse) { hold = try DiskHold(ofDiskAt: path) } catch { return error } }
            try stopDevice(info.id, timeout: UblkControlDevice.stopTimeout)
            return nil
        } catch {
            guard error.errno == .resourceBusy else { throw error }
            return .known(ofDiskAt: path)
        }
    }

    /// STOP waits for requests in flight.
    static let stopTimeout = Duration.seconds(60)

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
