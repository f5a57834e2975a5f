import Platform

/// `resize` of a device: asks its server to make the disk larger.
package enum DeviceResize {
    /// - Returns: the size in bytes that the disk has now.
    package static func run(
        deviceNamed name: String, to sizeBytes: UInt64, isDifference: Bool, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> UInt64 {
        try DeviceRequirements.check()
        let answer = try ControlSocketClient.ask(
            .resize(sizeBytes: sizeBytes, isDifference: isDifference), of: try registry.device(named: name), registry,
            timeout: .seconds(86_400))
        return answer["size"]?.integer(as: UInt64.self) ?? sizeBytes
    }
}
