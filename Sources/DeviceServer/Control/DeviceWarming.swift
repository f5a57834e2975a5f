import Platform

/// `cache verify`: has a device's server compare what it has kept with its base.
package enum DeviceVerification {
    /// Blocks until that has been done, or was cancelled (`DeviceCommit.change`).
    /// - Parameter progress: called with the share that is done.
    /// - Returns: "image", a path, "compared", bytes, and "first-difference", a device offset or null.
    package static func run(
        of record: DeviceRecord, progress: (@Sendable (Double) -> Void)?, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try MergeWatch.during(record, registry, tell: progress) {
            try ControlSocketClient.ask(.verify, of: record, registry, timeout: MergeWatch.timeout)
        }
    }
}

/// `warm`: has a device's server fetch some of the disk from the bottom of its chain.
package enum DeviceWarming {
    /// Blocks until that has been done, or was cancelled (`DeviceCommit.change`).
    /// - Parameter progress: called with the share that is done.
    /// - Returns: "image", a path, and "fetched", how many bytes the image has got.
    package static func run(
        deviceNamed name: String, _ part: ControlRequest.WarmPart, progress: (@Sendable (Double) -> Void)?,
        registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        // What is wrong with the file has its own status here.
        if case .recorded(let path) = part { _ = try ReadRecording(ofFileAt: path) }
        return try MergeWatch.during(record, registry, tell: progress) {
            try ControlSocketClient.ask(.warm(part), of: record, registry, timeout: MergeWatch.timeout)
        }
    }
}
