import BlockStorage
import Platform
import Ublk

/// The files that belong to devices which wait for a server: whoever changes one gives the device's users other data than
/// they have left. No lock says so then.
public enum WaitingImages {
    /// From now on this process opens none of them to change it, but as the server of its device.
    public static func protect() { FileClaims.areFound { device(thatHas: $0) } }

    /// The waiting device that is made of the file, or of one over it.
    private static func device(thatHas file: FileIdentity) -> String? {
        waiting(DeviceRegistry().list().filter { $0.image == file || $0.backingFiles.contains(file) })
    }

    /// Where no device is made of the file at `path`.
    /// - Throws: `replaced` where a waiting device was made of another file that was there.
    static func refuseReplaced(_ path: String) throws(WaitingDeviceError) {
        let file = FileIdentity(ofFileAt: path)
        if let device = waiting(DeviceRegistry().records(ofPath: path).filter { $0.image != file }) {
            throw .replaced(file: path, device: device)
        }
    }

    /// The first of the devices that waits.
    private static func waiting(_ devices: [DeviceRecord]) -> String? {
        let records = devices.filter { !$0.server.isRunning }
        if records.isEmpty { return nil }
        let control: UblkControlDevice
        do { control = try UblkControlDevice() } catch UblkControlError.noDriver { return nil } catch {
            // Who may not ask the kernel takes the record's word.
            return UblkPaths.blockDevice(records[0].deviceID)
        }
        // So does who gets no answer.
        return records.first { record in
            do { return try WaitingDevice(record, control) != nil } catch { return true }
        }.map { UblkPaths.blockDevice($0.deviceID) }
    }
}
