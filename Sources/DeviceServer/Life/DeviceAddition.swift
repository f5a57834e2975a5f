import BlockStorage
import Glibc
import Logging
import Platform
import QEDChain
import Ublk

/// `add`: makes a device of an image, or gives the one that waits with that image its next server.
public struct DeviceAddition {
    /// As the user has named it.
    public let imagePath: String
    public let requested: RequestedDevice
    private let warn: (String) -> Void

    /// - Parameter warn: is given sentences for the user.
    public init(imagePath: String, _ requested: RequestedDevice, warn: @escaping (String) -> Void) {
        self.imagePath = imagePath
        self.requested = requested
        self.warn = warn
    }

    /// Starts a server that stays when this process ends.
    /// - Parameters:
    ///   - isSupervised: another server is started whenever that one dies.
    ///   - announce: is given the device's path once it is usable. Where it throws, a device that is new is taken away again.
    /// - Throws: why there is no device; nothing is left behind then, and one that waits goes on waiting.
    public func runInBackground(isSupervised: Bool, announce: (String) throws -> Void) throws {
        if let waiting = try waitingDevice() {
            try announce(waiting.recover(isSupervised: isSupervised))
            return
        }
        // What is wrong with the files is said first, as in the foreground: a mistyped name has nothing to do with the
        // driver. The server asks for a base elsewhere: to ask here too would be as many round trips again.
        var policy = try requested.backing.policy()
        policy.baseOpening = .leftOut
        _ = try ImageChain.open(path: imagePath, isReadOnly: true, caching: .buffered, locking: .none, policy: policy)
        // Without a driver, or the right to use it, there is no point in going further.
        UblkDriver.load()
        _ = try UblkControlDevice()
        try serving(AbsolutePath.ofFile(imagePath)) { path in
            let server = try BackgroundServer.start(try requested.configuration(imagePath: path), isSupervised: isSupervised)
            do { try announce(server.path) } catch {
                server.abandon()
                throw error
            }
            try server.keep()
        }
    }

    /// Makes this process the server, until the device is gone or left to the next one.
    /// - Parameters: as of `runInBackground`.
    public func runInForeground(log: Logger, announce: (String) throws -> Void) throws -> ServerEnding {
        // In the background the server is another process, that gets nothing.
        Detachment.closeGivenDescriptors()
        let waiting = try waitingDevice()
        // Before it has another working directory. What is opened by them is opened through its own mounts, afterwards.
        let absolutePath = try AbsolutePath.ofFile(imagePath)
        UblkDriver.load()
        let notification = ServiceNotification()
        let process = try ServerProcess()
        func serve(_ configuration: ServerConfiguration) throws -> ServerEnding {
            let server = Server(configuration, process: process, log: log)
            var failure: (any Error)?
            let ending = try server.run { _, path in
                do { try announce(path) } catch { failure = error }
                notification?.ready("serving \(configuration.imagePath.printable) as \(path)")
                return failure == nil
            }
            if let failure { throw failure }
            return ending
        }
        if let waiting { return try serve(waiting.configuration()) }
        return try serving(absolutePath) { path in try serve(try requested.configuration(imagePath: path)) }
    }

    /// - Parameter serve: is given the path of what is to be served: the image, or an overlay over it that goes with the device,
    ///   and at once where there comes none of it.
    private func serving<Result>(_ imagePath: String, _ serve: (String) throws -> Result) throws -> Result {
        guard let directory = requested.throwAwayDirectory else { return try serve(imagePath) }
        let overlay = try ThrowAwayOverlay.make(over: imagePath, in: directory)
        do { return try serve(overlay) } catch {
            if DeviceRegistry().records(ofPath: overlay).isEmpty { unlink(overlay) }
            throw error
        }
    }

    /// The device that waits for a server, and is what is asked for; nil where the image has none.
    private func waitingDevice() throws -> WaitingDevice? {
        try DeviceRequirements.check()
        let waiting = try WaitingDevice.ofImage(imagePath)
        if let waiting { try waiting.refuse(whatDiffersIn: requested) }
        if waiting == nil { try WaitingImages.refuseReplaced(imagePath) }
        // It may take the whole machine along: said before, not after.
        if let defect = KernelRelease.running?.diagnosis(of: .addHangs) { warn("warning: \(defect)") }
        return waiting
    }
}
