import BlockStorage
import Platform

/// `commit` of a device: has its server merge snapshots beneath the image.
package enum DeviceCommit {
    /// Blocks until that has been done, or was cancelled.
    /// - Parameters:
    ///   - keep: so many of the newest snapshots stay.
    ///   - into: the file of the chain that gets them; nil: the lowest in the directory of the newest one.
    ///   - progress: called with the share that is done.
    /// - Returns: "into", a path, and "removed", paths, with "removed-count".
    package static func run(
        deviceNamed name: String, keeping keep: Int, into path: String?, progress: (@Sendable (Double) -> Void)?,
        registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        let target = try path.map { try AbsolutePath.ofFile($0) }
        return try MergeWatch.during(record, registry, tell: progress) {
            try ControlSocketClient.ask(.commit(keep: keep, into: target), of: record, registry, timeout: MergeWatch.timeout)
        }
    }

    /// Tells one that is under way, or what `DeviceFlatten` has begun, to wait, to go on, or to end.
    package static func change(
        deviceNamed name: String, _ change: ControlRequest.CommitChange, registry: DeviceRegistry = DeviceRegistry()
    ) throws {
        try DeviceRequirements.check()
        _ = try ControlSocketClient.ask(.commitChange(change), of: try registry.device(named: name), registry)
    }
}
