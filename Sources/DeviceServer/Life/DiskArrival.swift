import Logging
import Platform
import QEDFormat
import SystemPackage
import Ublk

/// What the kernel is to know of the disk on an image.
struct DiskShape: Equatable, Sendable {
    let sizeBytes: UInt64
    let blockSizeBytes: Int
    let clusterSizeBytes: UInt64
}

/// Giving a device its disk, for others to use, when all its queues serve; and a larger one later.
final class DiskArrival: Sendable {
    private let info: UblkDeviceInfo
    private let control: UblkControlDevice
    /// That has the character device open.
    private let serverProcess: Int32
    private let isReadOnly: Bool
    private let scansPartitions: Bool
    private let name: DeviceName?
    private let link: DeviceLink?

    private var path: String { UblkPaths.blockDevice(info.id) }

    init(
        of info: UblkDeviceInfo, _ control: UblkControlDevice, serverProcess: Int32, isReadOnly: Bool, scansPartitions: Bool,
        name: DeviceName?, link: DeviceLink?
    ) {
        self.info = info
        self.control = control
        self.serverProcess = serverProcess
        self.isReadOnly = isReadOnly
        self.scansPartitions = scansPartitions
        self.name = name
        self.link = link
    }

    /// Once, before `start`. A device that had a server before has a shape.
    func describe(_ shape: DiskShape) throws(ServerError) {
        do { try control.setParameters(parameters(of: shape), of: info) } catch { throw .control(error) }
    }

    /// The kernel reads twice as much ahead of a reader, whose memory that is: not whole clusters where they are large.
    static func optimalIOShift(clusterShift: Int) -> UInt8 { UInt8(min(clusterShift, 20)) }

    private func parameters(of shape: DiskShape) -> UblkParameters {
        let blockShift = UInt8(shape.blockSizeBytes.trailingZeroBitCount)
        var attributes: UblkParameters.Attributes = [.volatileCache, .forceUnitAccess]
        if isReadOnly { attributes.insert(.readOnly) }
        let basic = UblkParameters.Basic(
            attributes: attributes, logicalBlockShift: blockShift, physicalBlockShift: max(blockShift, 12),
            optimalIOShift: DiskArrival.optimalIOShift(clusterShift: shape.clusterSizeBytes.trailingZeroBitCount),
            minimumIOShift: max(blockShift, 12), maxSectors: UInt32(info.maxIOSizeBytes / 512),
            deviceSectors: shape.sizeBytes / QEDLimits.sectorSizeBytes)
        guard !isReadOnly else { return UblkParameters(basic: basic) }
        return UblkParameters(
            basic: basic, discard: UblkParameters.Discard(granularityBytes: UInt32(shape.clusterSizeBytes)))
    }

    /// Has the disk appear. Returns when its nodes, and those of its partitions, are there, and can be opened, and its name and
    /// its link lead to it.
    /// - Returns: what is missing yet does not keep anybody from using it, in sentences.
    func start() throws(ServerError) -> [String] {
        do {
            try control.startDevice(info.id, serverProcess: serverProcess, timeout: ServedDevice.startTimeout)
        } catch { throw .control(error) }
        let byKernel = !info.features.contains(.noPartitionScan)
        let nodes = DiskNodes(ofDiskAt: path, tableReader: !scansPartitions ? .nobody : byKernel ? .kernel : .server)
        let missing: [String]
        do throws(Errno) { missing = try nodes.wait(timeout: ServedDevice.startTimeout) } catch {
            throw .notUsable(path: path, error)
        }
        do { try name?.makeLink(to: info.id) } catch { throw .link(path: name?.link ?? "", error) }
        do { try link?.make(to: info.id) } catch { throw .symlink(error) }
        return missing.map { "\($0) is missing; see that this /dev is a devtmpfs" }
    }

    /// Has the disk of a device that had lost its server go on. Waits for the last tag.
    func endRecovery() throws(ServerError) {
        do {
            try control.endRecovery(info.id, serverProcess: serverProcess, timeout: ServedDevice.startTimeout)
        } catch { throw .control(error) }
        // It is there, unless somebody has removed it; as is its link, which could lie on the disk itself by now.
        try? name?.makeLink(to: info.id)
    }

    /// How large the kernel's disk is.
    func sizeBytes() throws(ServerError) -> UInt64 {
        do { return (try control.parameters(info.id)?.basic.deviceSectors ?? 0) * QEDLimits.sectorSizeBytes } catch {
            throw .control(error)
        }
    }

    /// Makes it larger, while it is used (Linux 6.16).
    /// - Parameter sizeBytes: in whole blocks of it.
    func grow(to sizeBytes: UInt64) throws(ServerError) {
        do { try control.updateSize(info.id, deviceSectors: sizeBytes / QEDLimits.sectorSizeBytes) } catch {
            throw .control(error)
        }
    }
}
