import BlockStorage
import Platform

/// `snapshot`: asks a device's server for one.
package enum DeviceSnapshot {
    /// - Parameters:
    ///   - name: of the device, as `DeviceReference` reads it.
    ///   - path: of the snapshot.
    ///   - mountPoint: of a file system on the disk that is to be frozen meanwhile; nil: none.
    /// - Returns: "snapshot", its absolute path, and "microseconds" that requests had to wait.
    package static func take(
        ofDeviceNamed name: String, at path: String, freezing mountPoint: String? = nil,
        registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        let frozen = try mountPoint.map { try FrozenFileSystem(at: $0, onDisk: record.deviceID) }
        defer { frozen?.thaw() }
        let reply = try ControlSocketClient.send(
            .snapshot(path: AbsolutePath.ofFile(path)), deviceID: record.deviceID, directory: registry.directory,
            timeout: .seconds(86_400))
        switch reply {
        case .success(let answer): return answer
        case .failure(let code, let sentence): throw ServerRefusal(code: code, description: sentence)
        }
    }
}
