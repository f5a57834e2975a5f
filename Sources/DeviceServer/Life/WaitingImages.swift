import Platform
import Ublk

/// The files that belong to devices which wait for a server: whoever changes one gives the device's users other data than
/// they have left. No lock says so then.
public enum WaitingImages {
    /// Before a command changes or replaces a file.
    /// - Throws: `belongs` where a waiting device is made of the file, or of one over it.
    public static func refuseChange(of path: String) throws {
        guard let file = FileIdentity(ofFileAt: path) else { return }
        if let device = try waiting(DeviceRegistry().list().filter { $0.image == file || $0.backingFiles.contains(file) }) {
            throw WaitingDeviceError.belongs(file: path, device: device)
        }
    }

    /// Where no device is made of the file at `path`.
    /// - Throws: `replaced` where a waiting device was made of another file that was there.
    public static func refuseReplaced(_ path: String) throws {
        let file = FileIdentity(ofFileAt: path)
        if let device = try waiting(DeviceRegistry().records(ofPath: path).filter { $0.image != file }) {
            throw WaitingDeviceError.replaced(file: path, device: device)
        }
    }

    /// The first of the devices that waits.
    private static func waiting(_ devices: [DeviceRecord]) throws -> String? {
        let records = devices.filter { !$0.server.isRunning }
        if records.isEmpty { return nil }
        let control: UblkControlDevice
        do { control = try UblkControlDevice() } catch UblkControlError.noDriver { return nil } catch {
            // Who may not ask the kernel takes the record's word.
            return UblkPaths.blockDevice(records[0].deviceID)
        }
        return try records.compactMap { try WaitingDevice($0, control) }.first?.path
    }
}
