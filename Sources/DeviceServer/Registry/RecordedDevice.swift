import Ublk

// Which device of the kernel's a record is about: the number alone does not tell, it is another device's next.

extension DeviceRecord {
    /// Whether it is the same device's, written by the same server.
    func isOfSameServer(as other: DeviceRecord) -> Bool { server == other.server && deviceNonce == other.deviceNonce }

    /// Whether the kernel's device is the one that was recorded.
    func isOf(_ info: UblkDeviceInfo) -> Bool { info.id == deviceID && info.serverFlags == deviceNonce }
}

extension UblkControlDevice {
    /// The device of a record; nil where it is gone, whatever has its number by now.
    func device(of record: DeviceRecord, timeout: Duration) throws(UblkControlError) -> UblkDeviceInfo? {
        guard let info = try existingDeviceInfo(record.deviceID, timeout: timeout), record.isOf(info) else { return nil }
        return info
    }
}
