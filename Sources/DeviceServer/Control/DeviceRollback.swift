import BlockStorage
import Platform

/// `rollback`: has a device's server put its disk back to what a snapshot has.
package enum DeviceRollback {
    /// Blocks until that has been done.
    /// - Parameters:
    ///   - path: of a file beneath the image.
    ///   - force: also where the disk is in use.
    /// - Returns: "snapshot", its path, and "left", those of newer snapshots, which are not beneath the image any more, and
    ///   "left-count".
    package static func run(
        deviceNamed name: String, to path: String, force: Bool, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        return try ControlSocketClient.ask(
            .rollback(path: AbsolutePath.ofFile(path), force: force), of: try registry.device(named: name), registry,
            timeout: .seconds(86_400))
    }
}
