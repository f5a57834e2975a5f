import Platform
import Ublk

/// A device of this program that has lost its server, and waits for another one.
struct WaitingDevice {
    let record: DeviceRecord
    let info: UblkDeviceInfo

    var path: String { UblkPaths.blockDevice(record.deviceID) }

    /// nil where the device has a server, or none can be given to it.
    init?(_ record: DeviceRecord, _ control: UblkControlDevice) throws(UblkControlError) {
        guard !record.server.isRunning,
            let info = try control.device(of: record, timeout: .seconds(5)),
            info.features.contains(.userRecovery),
            // The kernel takes a moment to notice a death, Linux 6.12 up to 30 s, and calls the device live meanwhile; its
            // server's process is then the dead one, or none, or that of the one before, where this one died as it took over.
            info.state.isRecoverable
                || (info.state == .live
                    && (info.serverProcess == record.server.id || ProcessIdentity(running: info.serverProcess) == nil))
        else { return nil }
        self.record = record
        self.info = info
    }

    /// The device that an image had when its server died; nil where there is none.
    static func ofImage(_ path: String) throws(UblkControlError) -> WaitingDevice? {
        let records = DeviceRegistry().find(.image(path: path)).filter { !$0.server.isRunning }
        if records.isEmpty { return nil }
        let control = try UblkControlDevice()
        for record in records {
            if let device = try WaitingDevice(record, control) { return device }
        }
        return nil
    }

    /// What its server is to do, as it is told.
    private var serverConfiguration: ServerConfiguration {
        var configuration = ServerConfiguration(imagePath: record.imagePath)
        configuration.deviceID = record.deviceID
        configuration.name = record.name
        configuration.link = record.link
        configuration.scansPartitions = record.scansPartitions
        configuration.isUntrusted = record.isUntrusted
        configuration.isThrowAway = record.isThrowAway
        configuration.isReadOnly = record.isReadOnly
        configuration.recovers = true
        configuration.backingArguments = record.backingArguments
        if let cacheBytes = record.cacheBytes { configuration.cacheBytes = cacheBytes }
        configuration.keepsReads = record.keepsReads
        configuration.keepLimitBytes = record.keepLimitBytes
        return configuration
    }

    /// What this process is to do as its server.
    func configuration() throws -> ServerConfiguration {
        var configuration = serverConfiguration
        configuration.backing = try BackingChoice(arguments: record.backingArguments).policy()
        return configuration
    }

    /// Gives it a server in the background, and waits until it is served.
    /// - Returns: its path.
    func recover(isSupervised: Bool = false) throws(ServerStartError) -> String {
        try finish(startServer(isSupervised: isSupervised))
    }

    /// Opens nothing: what its server has to open may be on a disk that waits as well.
    func startServer(isSupervised: Bool) throws(ServerStartError) -> BackgroundServer.Start {
        try BackgroundServer.launch(serverConfiguration, isSupervised: isSupervised)
    }

    /// Waits until it is served.
    /// - Returns: its path.
    func finish(_ start: BackgroundServer.Start) throws(ServerStartError) -> String {
        let server: BackgroundServer.Ready
        do { server = try start.ready() } catch {
            // Somebody else's was first: its supervisor's, say.
            guard let current = DeviceRegistry().record(of: record.deviceID), current.server != record.server,
                current.server.isRunning
            else { throw error }
            return path
        }
        // Whoever uses the device needs the server, even if nobody hears of it.
        try server.keep()
        return server.path
    }

    /// - Throws: `WaitingDeviceError.isAnother` where `add` is asked for a device that this one is not.
    func refuse(whatDiffersIn requested: RequestedDevice) throws {
        guard let parameters = try UblkControlDevice().parameters(record.deviceID) else {
            throw WaitingDeviceError.notFound(path)
        }
        if let difference = try DeviceTraits(record, info, parameters).difference(from: requested) {
            throw WaitingDeviceError.isAnother(image: record.imagePath, device: path, difference)
        }
    }
}

/// Why a device that waits for a server gets none, or a file none of what was asked for.
public enum WaitingDeviceError: Error, CustomStringConvertible {
    case isAnother(image: String, device: String, DeviceDifference)
    case replaced(file: String, device: String)
    case notFound(String)
    case isServed(String)
    case cannotWait(String)
    case orphan(UInt32)

    public var description: String {
        switch self {
        case .isAnother(let image, let device, let difference):
            "\(image): is that of \(device), which waits for a server and \(difference.has); leave out \(difference.option), or "
                + "remove that device first"
        case .replaced(let file, let device):
            "\(file): is not the file that \(device) was made of, which waits for a server; put that file back in its place and "
                + "'qed-ublk recover', or remove the device with 'qed-ublk del --force'"
        case .notFound(let device): "\(device): qed-ublk has no such device; see 'qed-ublk list'"
        case .orphan(let id):
            "\(UblkPaths.blockDevice(id)) has no server, and no record of its image: the server died before it wrote one, or the "
                + "records were removed; so nothing can serve it again: 'qed-ublk del \(id)', and add the image"
        case .isServed(let device): "\(device) has a server, and needs no other"
        case .cannotWait(let device):
            "\(device) does not wait for a server: it was added with --no-recovery, or has been stopped; remove it with "
                + "'qed-ublk del'"
        }
    }
}
