import Ublk

/// What udev's rule is told of a disk, as it appears.
public enum DeviceProperties {
    /// Asks the kernel for nothing that it tells only when the disk is complete: udev asks while it appears.
    /// - Parameter name: of the disk or one of its partitions, as `DeviceReference` reads it.
    /// - Returns: keys and values that are names for udev; none where the disk is somebody else's.
    /// - Throws: `UblkControlError`.
    public static func ofDevice(
        named name: String, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> [(key: String, value: String)] {
        try DeviceRequirements.check()
        guard let record = registry.find(DeviceReference(name)).first,
            try UblkControlDevice().device(of: record, timeout: .seconds(2)) != nil
        else { return [] }
        var properties: [(key: String, value: String)] = []
        if let id = DeviceName(ofImageAt: record.imagePath) { properties.append(("QED_ID", id.text)) }
        if let name = record.name { properties.append(("QED_NAME", name.text)) }
        if record.isUntrusted { properties.append(("QED_UNTRUSTED", "1")) }
        return properties
    }
}
