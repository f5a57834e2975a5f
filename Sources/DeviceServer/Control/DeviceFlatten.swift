import Platform

/// `flatten` of a device: has its server copy into the image what lies beneath it.
package enum DeviceFlatten {
    /// Blocks until that has been done, or was cancelled (`DeviceCommit.change`).
    /// - Parameter progress: called with the share that is done.
    /// - Returns: "image", a path, "forgotten", those of the files that it does not need any more, and "forgotten-count".
    package static func run(
        deviceNamed name: String, progress: (@Sendable (Double) -> Void)?, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        return try MergeWatch.during(record, registry, tell: progress) {
            try ControlSocketClient.ask(.flatten, of: record, registry, timeout: MergeWatch.timeout)
        }
    }
}
