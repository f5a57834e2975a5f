import BlockStorage
import Platform

/// `status` and `stats`: what a device is, and what its server has counted.
package enum DeviceFigures {
    /// Asks the server, which asks its queues.
    /// - Parameters:
    ///   - name: as `DeviceReference` reads it.
    ///   - quiesces: lets the requests under way end on all queues first.
    /// - Returns: an object; with `quiesces` it has "quiesce-microseconds" too, last.
    package static func ofDevice(
        named name: String, quiesces: Bool, registry: DeviceRegistry = DeviceRegistry()
    ) throws -> JSONValue {
        try DeviceRequirements.check()
        let record = try registry.device(named: name)
        var members: [JSONValue.Member] = []
        if quiesces, let pause = try ControlSocketClient.ask(.quiesce, of: record, registry)["microseconds"] {
            members.append(.init("quiesce-microseconds", pause))
        }
        if case .object(let figures) = try ControlSocketClient.ask(.stats, of: record, registry) { members = figures + members }
        return .object(members)
    }

    /// What the server of a known device has counted; nil where it has none, or that does not tell.
    static func ofServer(of device: KnownDevice, _ registry: DeviceRegistry) -> JSONValue? {
        guard device.server != nil, let record = device.record else { return nil }
        return try? ControlSocketClient.ask(.stats, of: record, registry)
    }

    /// What the server of a known device says of its base elsewhere: an object of those members of `status`, null where it has
    /// none or nobody says.
    package static func base(of device: KnownDevice, registry: DeviceRegistry = DeviceRegistry()) -> JSONValue {
        var status: JSONValue?
        if device.server != nil, let record = device.record, record.base != nil {
            status = try? ControlSocketClient.ask(.status, of: record, registry, timeout: .seconds(2))
        }
        return .object(
            ["base", "base-state", "base-away-since"].map { name in
                .init(name, status?[name] ?? (name == "base" ? device.record?.base.map { .string($0.address) } : nil) ?? .null)
            })
    }

    /// What the device is: the answer of its server.
    /// - Parameter name: as `DeviceReference` reads it.
    package static func status(ofDeviceNamed name: String, registry: DeviceRegistry = DeviceRegistry()) throws -> JSONValue {
        try DeviceRequirements.check()
        return try ControlSocketClient.ask(.status, of: try registry.device(named: name), registry)
    }
}

extension ControlSocketClient {
    /// Asks the server of a device.
    /// - Throws: `ControlSocketError`, or `ServerRefusal`.
    static func ask(
        _ request: ControlRequest, of record: DeviceRecord, _ registry: DeviceRegistry, timeout: Duration = .seconds(30)
    ) throws -> JSONValue {
        switch try send(request, deviceID: record.deviceID, directory: registry.directory, timeout: timeout) {
        case .success(let answer): return answer
        case .failure(let code, let sentence): throw ServerRefusal(code: code, description: sentence)
        }
    }
}
