import BlockStorage
import Platform

/// `snapshot`: asks a device's server for one.
package enum DeviceSnapshot {
    /// - Parameters:
    ///   - name: of the device, as `DeviceReference` reads it.
    ///   - path: of the snapshot.
    /// - Returns: "snapshot", its absolute path, and "microseconds" that requests had to wait.
    package static func take(
        ofDeviceNamed name: String, at path: String, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        let reply = try ControlSocketClient.send(
            .snapshot(path: AbsolutePath.ofFile(path)), deviceID: record.deviceID, directory: registry.directory,
            timeout: .seconds(86_400))
        switch reply {
        case .success(let answer): return answer
        case .failure(let code, let sentence): throw ServerRefusal(code: code, description: sentence)
        }
    }
}
