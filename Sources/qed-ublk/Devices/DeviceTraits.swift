import ArgumentParser
import BlockStorage
import DeviceServer
import Glibc
import Ublk

/// What a device is, of all that `add` can be asked for: decided when it was made, and kept by all of its servers.
struct DeviceTraits {
    var id: UInt32
    var isReadOnly: Bool
    /// Whether it outlives its servers.
    var isRecoverable: Bool
    var queueCount: Int
    var queueDepth: Int
    var blockSizeBytes: Int
    var isZeroCopy: Bool
    var cacheBytes: Int
    /// Options of `add`.
    var backingArguments: [String]
    /// The driver makes no more queues than these.
    var processorCount: Int

    /// What it has, as the end of a sentence, and the option that asks for something else.
    struct Difference: Equatable {
        var has: String
        var option: String
    }

    /// - Returns: the first option that is given and asks for another device; nil where there is none. What is not given is
    ///   as it is.
    /// - Throws: why a directory cannot be found.
    func difference(from options: DeviceOptions) throws -> Difference? {
        if let id = options.id, id != self.id { return Difference(has: "has number \(self.id)", option: "--id") }
        if options.readOnly, !isReadOnly { return Difference(has: "can be written to", option: "--read-only") }
        if options.noRecovery, isRecoverable { return Difference(has: "outlives its servers", option: "--no-recovery") }
        if options.force { return Difference(has: "goes on only where nothing is lost", option: "--force") }
        if let queues = options.queues, min(queues, processorCount) != queueCount {
            return Difference(has: "has \(queueCount) queues", option: "--queues")
        }
        if let depth = options.depth, depth != queueDepth {
            return Difference(has: "has a depth of \(queueDepth)", option: "--depth")
        }
        if let blockSize = options.blockSize, blockSize != blockSizeBytes {
            return Difference(has: "has blocks of \(blockSizeBytes) bytes", option: "--block-size")
        }
        switch options.zeroCopy {
        case .on where !isZeroCopy: return Difference(has: "has no zero copy", option: "--zero-copy")
        case .off where isZeroCopy: return Difference(has: "has zero copy", option: "--zero-copy")
        default: break
        }
        if let size = options.cacheSize, size != UInt64(cacheBytes) {
            return Difference(has: "has a cache of \(cacheBytes) bytes", option: "--cache-size")
        }
        return try backingDifference(from: options.backing)
    }

    private func backingDifference(from options: BackingOptions) throws -> Difference? {
        let own = try BackingOptions.parse(backingArguments)
        let has =
            backingArguments.isEmpty ? "may open any backing file" : "was added with \(backingArguments.joined(separator: " "))"
        if options.noBacking, !own.noBacking { return Difference(has: has, option: "--no-backing") }
        if options.backingDevices, !own.backingDevices { return Difference(has: has, option: "--backing-devices") }
        let directories = Set(try options.absoluteDirectories())
        guard directories.isEmpty || directories == Set(own.backingDirectories) else {
            return Difference(has: has, option: "--backing-dir")
        }
        return nil
    }
}

extension DeviceTraits {
    init(_ record: DeviceRecord, _ info: UblkDeviceInfo, _ parameters: UblkParameters) {
        id = record.deviceID
        isReadOnly = parameters.basic.attributes.contains(.readOnly)
        isRecoverable = info.features.contains(.userRecovery)
        queueCount = info.queueCount
        queueDepth = info.queueDepth
        blockSizeBytes = 1 << Int(parameters.basic.logicalBlockShift)
        isZeroCopy = info.isZeroCopy
        cacheBytes = record.cacheBytes ?? ServerConfiguration(imagePath: "").cacheBytes
        backingArguments = record.backingArguments
        processorCount = max(sysconf(Int32(_SC_NPROCESSORS_CONF)), 1)
    }
}
