import Platform
import Ublk

/// Devices without a record that nobody serves: their server died before it wrote one, or the records were removed.
enum OrphanedDevices {
    /// Devices that exist, but for those that are known.
    static func candidates(besides known: [UInt32]) -> [UInt32] {
        ProcessFiles.names(in: "/sys/class/ublk-char").compactMap { name in
            name.hasPrefix("ublkc") ? UInt32(name.dropFirst("ublkc".count)) : nil
        }.filter { !known.contains($0) }
    }

    /// nil where the device is gone, or is another program's that serves it or is about to.
    static func info(of id: UInt32, _ control: UblkControlDevice) -> UblkDeviceInfo? {
        guard server(of: id) == nil, let info = try? control.existingDeviceInfo(id, timeout: .seconds(2)) else { return nil }
        // Its server may be in a namespace whose processes this one does not see: then the kernel gives no number.
        return info.state == .live && info.serverProcess != 0 && ProcessIdentity(running: info.serverProcess) != nil ? nil : info
    }

    /// The process that has the device's character device open: whoever serves it.
    static func server(of id: UInt32) -> Int32? {
        let path = UblkPaths.characterDevice(id)
        return ProcessFiles.otherProcesses().first { process in
            let directory = "/proc/\(process)/fd"
            return ProcessFiles.names(in: directory).contains { ProcessFiles.target(ofLink: "\(directory)/\($0)") == path }
        }
    }
}
