import CSupport
import Glibc
import Logging
import QEDEngine
import QEDFormat
import SystemPackage
import Ublk

extension ServedDevice {
    /// Makes a device of an image: either the disk is usable, or every step that was taken is undone.
    /// - Parameter willAppear: called before the kernel has the disk, and tells everybody of it, udev among them.
    static func add(
        _ configuration: ServerConfiguration, process: ServerProcess, log: Logger,
        willAppear: (UblkDeviceInfo, ImageSession, UndoList) throws(ServerError) -> Void
    ) throws(ServerError) -> ServedDevice {
        let undo = UndoList()
        defer { undo.run() }
        // Before the image is opened, which writes to it.
        if configuration.zeroCopy == .on { _ = try features(for: configuration, openControl(), takesPages: true) }
        let session = try ImageSession(configuration)
        undo.append { _ = try? session.close() }
        try process.takeSignals()
        session.reportReplay(to: log)
        let blocks = try session.chooseBlocks(wantedBytes: configuration.blockSizeBytes)
        let queuesChanged = try openEvents(undo)

        let control = try openControl()
        let info: UblkDeviceInfo
        let wanted = try features(for: configuration, control, takesPages: session.takesPages)
        do {
            info = try control.addDevice(
                id: configuration.deviceID, queues: configuration.queues, queueDepth: configuration.queueDepth,
                maxIOSizeBytes: configuration.maxIOSizeBytes, features: wanted,
                // What the device's record is known by.
                serverFlags: .random(in: 1 ... .max))
        } catch {
            throw .control(error)
        }
        undo.append { try? control.deleteDevice(info.id, timeout: stopTimeout) }
        let characterDevice = try openCharacterDevice(info.id, undo)
        do {
            try control.setParameters(parameters(of: session, configuration, info, blocks.blockSizeBytes), of: info)
        } catch {
            throw .control(error)
        }
        let device = ServedDevice(
            info: info, session: session, control: control, characterDevice: characterDevice,
            queuesChanged: queuesChanged, configuration, log: log)
        undo.append {
            // Commands that wait for requests come back aborted, and the threads end.
            try? control.stopDevice(info.id, timeout: stopTimeout)
            device.joinQueues()
        }
        try device.startQueues()
        try willAppear(info, session, undo)
        do {
            try control.startDevice(info.id, serverProcess: getpid(), timeout: startTimeout)
        } catch {
            throw .control(error)
        }
        try device.waitForNodes()
        undo.cancel()
        return device
    }

    private static func openControl() throws(ServerError) -> UblkControlDevice {
        do { return try UblkControlDevice() } catch { throw .control(error) }
    }

    private static func features(
        for configuration: ServerConfiguration, _ control: UblkControlDevice, takesPages: Bool
    ) throws(ServerError) -> UblkFeatures {
        let offered: UblkFeatures?
        do { offered = try control.features() } catch { throw .control(error) }
        return try configuration.features(offered: offered, takesPages: takesPages)
    }

    /// The kernel reads twice as much ahead of a reader, whose memory that is: not whole clusters where they are large.
    static func optimalIOShift(clusterShift: Int) -> UInt8 { UInt8(min(clusterShift, 20)) }

    private static func parameters(
        of session: ImageSession, _ configuration: ServerConfiguration, _ info: UblkDeviceInfo, _ blockSizeBytes: Int
    ) -> UblkParameters {
        let geometry = session.image.geometry
        let blockShift = UInt8(blockSizeBytes.trailingZeroBitCount)
        var attributes: UblkParameters.Attributes = [.volatileCache, .forceUnitAccess]
        if configuration.isReadOnly { attributes.insert(.readOnly) }
        let basic = UblkParameters.Basic(
            attributes: attributes, logicalBlockShift: blockShift, physicalBlockShift: max(blockShift, 12),
            optimalIOShift: optimalIOShift(clusterShift: Int(geometry.clusterShift)), minimumIOShift: max(blockShift, 12),
            maxSectors: UInt32(info.maxIOSizeBytes / 512),
            deviceSectors: session.image.sizeBytes / QEDLimits.sectorSizeBytes)
        guard !configuration.isReadOnly else { return UblkParameters(basic: basic) }
        return UblkParameters(
            basic: basic, discard: UblkParameters.Discard(granularityBytes: UInt32(geometry.clusterSizeBytes)))
    }
}

// What adding and recovering have in common.
extension ServedDevice {
    static func openEvents(_ undo: UndoList) throws(ServerError) -> Int32 {
        let events = cs_eventfd()
        guard events >= 0 else { throw .ring(Errno(rawValue: -events)) }
        undo.append { _ = Glibc.close(events) }
        return events
    }

    static func openCharacterDevice(
        _ id: UInt32, _ undo: UndoList
    ) throws(ServerError) -> UblkCharacterDevice {
        let device: UblkCharacterDevice
        do { device = try UblkCharacterDevice.open(id: id) } catch { throw .characterDevice(error) }
        undo.append { device.close() }
        return device
    }
}

/// The steps that take back what has been done so far, the last one first; unless everything went well.
final class UndoList {
    private var steps: [() -> Void] = []

    func append(_ step: @escaping () -> Void) { steps.append(step) }

    func cancel() { steps = [] }

    func run() {
        while let step = steps.popLast() { step() }
    }
}
