import BlockStorage
import Glibc
import Platform
import QEDChain
import QEDFormat

/// An overlay that goes with its device: what is written to the disk is kept by nobody, and the image beneath stays as it is.
///
/// It has a name as long as the device is there, so that the device outlives its server like any other; `DeviceRegistry.remove`
/// takes it away with the record.
enum ThrowAwayOverlay {
    /// - Parameters:
    ///   - imagePath: absolute.
    ///   - directory: where it is to lie.
    /// - Returns: the overlay's path. Nobody but its owner can read it.
    static func make(over imagePath: String, in directory: String) throws -> String {
        let geometry = try ImageDescription(reading: imagePath).header.geometry
        let name = "qed-ublk-" + String(UInt64.random(in: .min ... .max), radix: 16) + ".qed"
        let path = try AbsolutePath.ofFile("\(directory)/\(name)")
        _ = try ImageCreation(
            path: path, geometry: geometry, backing: ImageCreation.Backing(name: imagePath, format: .qed)
        ).create()
        chmod(path, 0o600)
        return path
    }
}

extension DeviceRecord {
    /// What is the device's alone, and goes with it: its links, and an overlay that is thrown away.
    func removeBelongings() {
        name?.removeLink(to: deviceID)
        link?.remove(to: deviceID)
        if isThrowAway { try? MergedFiles(files: [.init(path: imagePath, file: image)]).remove() }
    }
}
