import BlockStorage
import Platform

/// `snapshot`: asks a device's server for one.
package enum DeviceSnapshot {
    /// - Parameters:
    ///   - name: of the device, as `DeviceReference` reads it.
    ///   - path: of the snapshot, or, with `isOverlay`, of the image that the device goes on with.
    ///   - mountPoint: of a file system on the disk that is to be frozen meanwhile; nil: none.
    /// - Returns: "snapshot", its absolute path, "image", that of what is served, and "microseconds" that requests had to wait.
    package static func take(
        ofDeviceNamed name: String, at path: String, isOverlay: Bool = false, freezing mountPoint: String? = nil,
        registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        // A disk that nobody serves would not let go of what its file system writes first.
        if mountPoint != nil { _ = try ControlSocketClient.ask(.status, of: record, registry) }
        let frozen = try mountPoint.map { try FrozenFileSystem(at: $0, onDisk: record.deviceID) }
        defer { frozen?.thaw() }
        return try ControlSocketClient.ask(
            .snapshot(path: AbsolutePath.ofFile(path), isOverlay: isOverlay), of: record, registry, timeout: .seconds(86_400))
    }
}
