import Platform
import Ublk

/// `recover`: gives devices that have lost their server another one, in the background.
public enum DeviceRecovery {
    /// - Parameter name: as `DeviceReference` reads it.
    /// - Returns: the device's path, once it is served.
    public static func recover(named name: String, isSupervised: Bool) throws -> String {
        try DeviceRequirements.check()
        let control = try UblkControlDevice()
        let reference = DeviceReference(name)
        let registry = DeviceRegistry()
        // Told to end a moment ago, as in an upgrade, it is not what serves the device from now on.
        for record in registry.find(reference) { LeavingServer.waitForEnd(in: record) }
        let records = registry.find(reference)
        guard let first = records.first else {
            if case .device(let id) = reference, OrphanedDevices.candidates(besides: []).contains(id),
                OrphanedDevices.server(of: id) == nil
            {
                throw WaitingDeviceError.orphan(id)
            }
            if case .image(let path) = reference { try WaitingImages.refuseReplaced(path) }
            throw WaitingDeviceError.notFound(name)
        }
        if let device = try records.compactMap({ try WaitingDevice($0, control) }).first {
            return try device.recover(isSupervised: isSupervised)
        }
        guard !records.contains(where: { $0.server.isRunning }) else {
            throw WaitingDeviceError.isServed(UblkPaths.blockDevice(first.deviceID))
        }
        guard try control.device(of: first, timeout: .seconds(5)) != nil else { throw WaitingDeviceError.notFound(name) }
        throw WaitingDeviceError.cannotWait(UblkPaths.blockDevice(first.deviceID))
    }

    /// All at once: the image of one can lie on another's disk, and its server goes on when that has one. Those whose images
    /// lie on no other come first.
    /// - Parameters:
    ///   - served: is given the path of each that has a server now.
    ///   - failed: is given why one could not be recovered, or what `served` threw; the others are recovered.
    public static func recoverAll(
        isSupervised: Bool, served: (String) throws -> Void, failed: (any Error) -> Void
    ) throws {
        try DeviceRequirements.check()
        let control = try UblkControlDevice()
        let registry = DeviceRegistry()
        var starts: [(WaitingDevice, BackgroundServer.Start)] = []
        for record in registry.list() { LeavingServer.waitForEnd(in: record) }
        for record in StackedDevices.bottomFirst(registry.list()) {
            do {
                guard let device = try WaitingDevice(record, control) else { continue }
                starts.append((device, try device.startServer(isSupervised: isSupervised)))
            } catch {
                failed(error)
            }
        }
        for (device, start) in starts {
            do { try served(device.finish(start)) } catch { failed(error) }
        }
    }
}
