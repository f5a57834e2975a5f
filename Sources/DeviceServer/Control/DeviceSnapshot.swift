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
        let path = try AbsolutePath.ofFile(path)
        guard !record.isUntrusted else {
            let way = isOverlay ? Snapshot.Way.overlayIsNamed : .snapshotIsNamed
            let microseconds: UInt64
            do {
                microseconds = try SnapshotBetweenServers(id: record.deviceID, registry: registry).take(at: path, way)
            } catch let error as SnapshotError {
                // As its server would say it.
                guard case .failure(let code, let sentence) = error.reply else { throw error }
                throw ServerRefusal(code: code, description: sentence)
            }
            let image = record.imagePath
            return [
                "snapshot": .string(isOverlay ? image : path), "image": .string(isOverlay ? path : image),
                "microseconds": JSONValue(microseconds),
            ]
        }
        return try ControlSocketClient.ask(
            .snapshot(path: path, isOverlay: isOverlay), of: record, registry, timeout: .seconds(86_400))
    }
}
