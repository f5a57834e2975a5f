import CSupport

/// What the block layer is told about the disk before it starts (`SET_PARAMS`). Sectors are 512 bytes.
public struct UblkParameters: Equatable, Sendable {
    public struct Attributes: OptionSet, Sendable {
        public let rawValue: UInt32
        public init(rawValue: UInt32) { self.rawValue = rawValue }

        public static let readOnly = Attributes(rawValue: CS_UBLK_ATTR_READ_ONLY)
        public static let rotational = Attributes(rawValue: CS_UBLK_ATTR_ROTATIONAL)
        /// Completed writes may be lost in a power cut until a flush; without it no flush ever arrives.
        public static let volatileCache = Attributes(rawValue: CS_UBLK_ATTR_VOLATILE_CACHE)
        /// Single writes can ask for durability; ignored by the driver without `volatileCache`.
        public static let forceUnitAccess = Attributes(rawValue: CS_UBLK_ATTR_FUA)
    }

    /// Geometry and limits. A shift of n stands for 2^n bytes.
    public struct Basic: Equatable, Sendable {
        public var attributes: Attributes
        public var logicalBlockShift: UInt8
        public var physicalBlockShift: UInt8
        public var optimalIOShift: UInt8
        public var minimumIOShift: UInt8
        /// The largest request.
        public var maxSectors: UInt32
        /// Requests are split at multiples of this; 0: not.
        public var chunkSectors: UInt32
        /// The size of the disk.
        public var deviceSectors: UInt64
        public var virtualBoundaryMask: UInt64

        public init(
            attributes: Attributes, logicalBlockShift: UInt8 = 9, physicalBlockShift: UInt8 = 12,
            optimalIOShift: UInt8 = 12, minimumIOShift: UInt8 = 12, maxSectors: UInt32, chunkSectors: UInt32 = 0,
            deviceSectors: UInt64, virtualBoundaryMask: UInt64 = 0
        ) {
            self.attributes = attributes
            self.logicalBlockShift = logicalBlockShift
            self.physicalBlockShift = physicalBlockShift
            self.optimalIOShift = optimalIOShift
            self.minimumIOShift = minimumIOShift
            self.maxSectors = maxSectors
            self.chunkSectors = chunkSectors
            self.deviceSectors = deviceSectors
            self.virtualBoundaryMask = virtualBoundaryMask
        }
    }

    /// Limits of DISCARD and WRITE ZEROES; neither arrives without them.
    public struct Discard: Equatable, Sendable {
        public var alignmentBytes: UInt32
        public var granularityBytes: UInt32
        /// 0: no DISCARD. Not bounded by the I/O size.
        public var maxDiscardSectors: UInt32
        /// 0: the kernel writes zeros as ordinary data.
        public var maxWriteZeroesSectors: UInt32
        public var maxSegments: UInt16

        public init(
            alignmentBytes: UInt32 = 0, granularityBytes: UInt32, maxDiscardSectors: UInt32 = .max >> 9,
            maxWriteZeroesSectors: UInt32 = .max >> 9, maxSegments: UInt16 = 1
        ) {
            self.alignmentBytes = alignmentBytes
            self.granularityBytes = granularityBytes
            self.maxDiscardSectors = maxDiscardSectors
            self.maxWriteZeroesSectors = maxWriteZeroesSectors
            self.maxSegments = maxSegments
        }
    }

    public var basic: Basic
    public var discard: Discard?

    public init(basic: Basic, discard: Discard? = nil) {
        self.basic = basic
        self.discard = discard
    }
}

/// The kernel's structure and back.
extension UblkParameters {
    func encoded() -> cs_ublk_params {
        var raw = cs_ublk_params()
        raw.len = UInt32(MemoryLayout<cs_ublk_params>.size)
        raw.types = CS_UBLK_PARAM_TYPE_BASIC
        raw.basic = cs_ublk_param_basic(
            attrs: basic.attributes.rawValue, logical_bs_shift: basic.logicalBlockShift,
            physical_bs_shift: basic.physicalBlockShift, io_opt_shift: basic.optimalIOShift,
            io_min_shift: basic.minimumIOShift, max_sectors: basic.maxSectors, chunk_sectors: basic.chunkSectors,
            dev_sectors: basic.deviceSectors, virt_boundary_mask: basic.virtualBoundaryMask)
        if let discard {
            raw.types |= CS_UBLK_PARAM_TYPE_DISCARD
            raw.discard = cs_ublk_param_discard(
                discard_alignment: discard.alignmentBytes, discard_granularity: discard.granularityBytes,
                max_discard_sectors: discard.maxDiscardSectors,
                max_write_zeroes_sectors: discard.maxWriteZeroesSectors, max_discard_segments: discard.maxSegments,
                reserved: 0)
        }
        return raw
    }

    /// nil when no parameters were set yet.
    init?(_ raw: cs_ublk_params) {
        guard raw.types & CS_UBLK_PARAM_TYPE_BASIC != 0 else { return nil }
        basic = Basic(
            attributes: Attributes(rawValue: raw.basic.attrs), logicalBlockShift: raw.basic.logical_bs_shift,
            physicalBlockShift: raw.basic.physical_bs_shift, optimalIOShift: raw.basic.io_opt_shift,
            minimumIOShift: raw.basic.io_min_shift, maxSectors: raw.basic.max_sectors,
            chunkSectors: raw.basic.chunk_sectors, deviceSectors: raw.basic.dev_sectors,
            virtualBoundaryMask: raw.basic.virt_boundary_mask)
        if raw.types & CS_UBLK_PARAM_TYPE_DISCARD != 0 {
            discard = Discard(
                alignmentBytes: raw.discard.discard_alignment, granularityBytes: raw.discard.discard_granularity,
                maxDiscardSectors: raw.discard.max_discard_sectors,
                maxWriteZeroesSectors: raw.discard.max_write_zeroes_sectors,
                maxSegments: raw.discard.max_discard_segments)
        }
    }
}
