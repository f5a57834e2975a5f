import Platform

/// `stats`: what a device's server has counted.
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
        if quiesces, let pause = try ask(.quiesce, of: record, registry)["microseconds"] {
            members.append(.init("quiesce-microseconds", pause))
        }
        if case .object(let figures) = try ask(.stats, of: record, registry) { members = figures + members }
        return .object(members)
    }

    private static func ask(
        _ request: ControlRequest, of record: DeviceRecord, _ registry: DeviceRegistry
    ) throws -> JSONValue {
        switch try ControlSocketClient.send(
            request, deviceID: record.deviceID, directory: registry.directory, timeout: .seconds(30))
        {
        case .success(let answer): return answer
        case .failure(let code, let sentence): throw ServerRefusal(code: code, description: sentence)
        }
    }
}
