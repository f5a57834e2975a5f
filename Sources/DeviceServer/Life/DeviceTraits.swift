import Glibc
import Ublk

/// What a device is, of all that `add` can be asked for: decided when it was made, and kept by all of its servers.
struct DeviceTraits {
    var id: UInt32
    var name: DeviceName?
    var link: DeviceLink?
    var scansPartitions: Bool
    var isUntrusted: Bool
    var isReadOnly: Bool
    /// Whether it outlives its servers.
    var isRecoverable: Bool
    var queueCount: Int
    var queueDepth: Int
    var blockSizeBytes: Int
    var isZeroCopy: Bool
    var cacheBytes: Int
    var keepsReads: Bool
    var keepLimitBytes: UInt64?
    /// Options of `add`.
    var backingArguments: [String]
    /// The driver makes no more queues than these.
    var processorCount: Int

    /// - Returns: the first thing that is asked for and that the device is not; nil where there is none. What is not asked for
    ///   is as it is.
    /// - Throws: where the record of its backing files makes no sense.
    func difference(from requested: RequestedDevice) throws(BackingArgumentError) -> DeviceDifference? {
        typealias Difference = DeviceDifference
        if let id = requested.id, id != self.id { return Difference(has: "has number \(self.id)", option: "--id") }
        if let name = requested.name, name != self.name {
            return Difference(has: self.name.map { "has the name \($0)" } ?? "has no name", option: "--name")
        }
        if let link = requested.link, link != self.link {
            return Difference(has: self.link.map { "has the link \($0.path)" } ?? "has no link", option: "--symlink")
        }
        if requested.isUntrusted, !isUntrusted {
            return Difference(has: "is looked at by the system", option: "--untrusted")
        }
        if let scansPartitions = requested.scansPartitions, scansPartitions != self.scansPartitions {
            return self.scansPartitions
                ? Difference(has: "has had its partition table read", option: "--no-partscan")
                : Difference(has: "has no partitions", option: "--partscan")
        }
        if requested.throwAwayDirectory != nil { return Difference(has: "writes to its image", option: "--snapshot") }
        // It is said only together with those that follow.
        if let limit = requested.keepLimitBytes, limit != keepLimitBytes {
            return Difference(
                has: keepLimitBytes.map { "keeps \($0) bytes of what it reads" } ?? "keeps all that it reads",
                option: "--keep-limit")
        }
        if requested.isReadOnly, !isReadOnly { return Difference(has: "can be written to", option: "--read-only") }
        if requested.isUnrecoverable, isRecoverable {
            return Difference(has: "outlives its servers", option: "--no-recovery")
        }
        if requested.discardsLostSession { return Difference(has: "goes on only where nothing is lost", option: "--force") }
        if let queues = requested.queues, min(queues, processorCount) != queueCount {
            return Difference(has: "has \(queueCount) queues", option: "--queues")
        }
        if let depth = requested.queueDepth, depth != queueDepth {
            return Difference(has: "has a depth of \(queueDepth)", option: "--depth")
        }
        if let blockSize = requested.blockSizeBytes, blockSize != blockSizeBytes {
            return Difference(has: "has blocks of \(blockSizeBytes) bytes", option: "--block-size")
        }
        switch requested.zeroCopy {
        case .on where !isZeroCopy: return Difference(has: "has no zero copy", option: "--zero-copy")
        case .off where isZeroCopy: return Difference(has: "has zero copy", option: "--zero-copy")
        default: break
        }
        if let size = requested.cacheBytes, size != cacheBytes {
            return Difference(has: "has a cache of \(cacheBytes) bytes", option: "--cache-size")
        }
        // They are about a start, which this one has behind it.
        if requested.recordPath != nil { return Difference(has: "goes on where it was", option: "--record") }
        if requested.prefetchPath != nil { return Difference(has: "goes on where it was", option: "--prefetch") }
        if requested.keepsReads, !keepsReads {
            return Difference(has: "keeps nothing of what it reads", option: "--copy-on-read")
        }
        return try backingDifference(from: requested.backing)
    }

    private func backingDifference(from requested: BackingChoice) throws(BackingArgumentError) -> DeviceDifference? {
        let own = try BackingChoice(arguments: backingArguments)
        let has =
            backingArguments.isEmpty ? "may open any backing file" : "was added with \(backingArguments.joined(separator: " "))"
        if requested.refusesBackingFiles, !own.refusesBackingFiles {
            return DeviceDifference(has: has, option: "--no-backing")
        }
        if requested.allowsBlockDevices, !own.allowsBlockDevices {
            return DeviceDifference(has: has, option: "--backing-devices")
        }
        guard requested.directories.isEmpty || Set(requested.directories) == Set(own.directories) else {
            return DeviceDifference(has: has, option: "--backing-dir")
        }
        guard requested.bases.isEmpty || Set(requested.bases) == Set(own.bases) else {
            return DeviceDifference(has: has, option: "--base-allow")
        }
        if let timeout = requested.baseTimeoutSeconds, timeout != own.baseTimeoutSeconds {
            return DeviceDifference(has: has, option: "--base-timeout")
        }
        return nil
    }
}

/// What a device has, as the end of a sentence, and the option of `add` that asks for something else.
public struct DeviceDifference: Equatable, Sendable {
    var has: String
    var option: String
}

extension DeviceTraits {
    init(_ record: DeviceRecord, _ info: UblkDeviceInfo, _ parameters: UblkParameters) {
        id = record.deviceID
        name = record.name
        link = record.link
        scansPartitions = record.scansPartitions
        isUntrusted = record.isUntrusted
        isReadOnly = parameters.basic.attributes.contains(.readOnly)
        isRecoverable = info.features.contains(.userRecovery)
        queueCount = info.queueCount
        queueDepth = info.queueDepth
        blockSizeBytes = 1 << Int(parameters.basic.logicalBlockShift)
        isZeroCopy = info.isZeroCopy
        cacheBytes = record.cacheBytes ?? ServerConfiguration(imagePath: "").cacheBytes
        keepsReads = record.keepsReads
        keepLimitBytes = record.keepLimitBytes
        backingArguments = record.backingArguments
        processorCount = max(sysconf(Int32(_SC_NPROCESSORS_CONF)), 1)
    }
}
