import CSupport

/// What a request asks for.
public enum RequestOperation: Equatable, Sendable {
    case read
    case write
    /// Carries no data; arrives only with a volatile cache.
    case flush
    case discard
    case writeZeroes
    /// One that this program does not know; answer EOPNOTSUPP.
    case other(UInt8)

    @inlinable @inline(__always)
    public init(rawValue: UInt8) {
        switch rawValue {
        case CS_UBLK_OP_READ: self = .read
        case CS_UBLK_OP_WRITE: self = .write
        case CS_UBLK_OP_FLUSH: self = .flush
        case CS_UBLK_OP_DISCARD: self = .discard
        case CS_UBLK_OP_WRITE_ZEROES: self = .writeZeroes
        default: self = .other(rawValue)
        }
    }

    var rawValue: UInt8 {
        switch self {
        case .read: CS_UBLK_OP_READ
        case .write: CS_UBLK_OP_WRITE
        case .flush: CS_UBLK_OP_FLUSH
        case .discard: CS_UBLK_OP_DISCARD
        case .writeZeroes: CS_UBLK_OP_WRITE_ZEROES
        case .other(let value): value
        }
    }
}

/// How a request is to be done: bits of the descriptor's first word, where they stand in it.
public struct RequestFlags: OptionSet, Sendable {
    public let rawValue: UInt32
    @inlinable @inline(__always) public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Durable when it completes. Arrives only with a volatile cache.
    @inlinable public static var forceUnitAccess: RequestFlags { RequestFlags(rawValue: CS_UBLK_IO_F_FUA) }
    /// WRITE ZEROES that must keep the space allocated.
    @inlinable public static var noUnmap: RequestFlags { RequestFlags(rawValue: CS_UBLK_IO_F_NOUNMAP) }
    /// A file system's own structures.
    @inlinable public static var metadata: RequestFlags { RequestFlags(rawValue: CS_UBLK_IO_F_META) }
    /// Pages on their way out or in: waiting for memory could wait for this request.
    @inlinable public static var swap: RequestFlags { RequestFlags(rawValue: CS_UBLK_IO_F_SWAP) }
    /// With `autoBufferRegistration`: the driver could not register the buffer.
    @inlinable public static var needsBufferRegistration: RequestFlags {
        RequestFlags(rawValue: CS_UBLK_IO_F_NEED_REG_BUF)
    }
}

/// One request as the kernel describes it. A copy: the kernel writes the next one over the original.
public struct RequestDescriptor: Sendable {
    @usableFromInline let raw: cs_ublk_io_descriptor

    @inlinable @inline(__always)
    init(_ raw: cs_ublk_io_descriptor) { self.raw = raw }

    /// As the kernel would write it, with a `bufferAddress` of 0. Place and size are multiples of 512.
    public init(_ operation: RequestOperation, flags: RequestFlags = [], deviceOffset: UInt64 = 0, sizeBytes: Int = 0) {
        raw = cs_ublk_io_descriptor(
            op_flags: UInt32(operation.rawValue) | flags.rawValue, nr_sectors: UInt32(sizeBytes >> 9),
            start_sector: deviceOffset >> 9, addr: 0)
    }

    @inlinable @inline(__always)
    public var operation: RequestOperation { RequestOperation(rawValue: UInt8(truncatingIfNeeded: raw.op_flags)) }

    @inlinable @inline(__always)
    public var flags: RequestFlags { RequestFlags(rawValue: raw.op_flags & ~0xff) }

    /// In sectors of 512 bytes, whatever the disk's block size. A flush has no place: all ones there.
    @inlinable @inline(__always)
    public var startSector: UInt64 { raw.start_sector }

    /// 0 for a flush.
    @inlinable @inline(__always)
    public var sectorCount: UInt32 { raw.nr_sectors }

    /// Where on the disk, in bytes; wraps round on a sector that no disk has. Without meaning for a flush.
    @inlinable @inline(__always)
    public var deviceOffset: UInt64 { raw.start_sector &<< 9 }

    @inlinable @inline(__always)
    public var sizeBytes: Int { Int(raw.nr_sectors) &<< 9 }

    /// Where the data is: the address given with the fetch.
    @inlinable @inline(__always)
    public var bufferAddress: UInt64 { raw.addr }
}
