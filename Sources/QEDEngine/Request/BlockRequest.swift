import BlockStorage
import SystemPackage

/// What a block device is asked to do. The names are the kernel's.
public enum BlockOperation: UInt8, Sendable {
    case read, write, flush, discard, writeZeroes
}

/// One request on a device, as its queue hands it to the engine.
public struct BlockRequest: @unchecked Sendable {
    public var operation: BlockOperation
    /// First byte of the device that is concerned; a multiple of 512.
    public var deviceOffset: UInt64
    /// A multiple of 512; 0 for a flush.
    public var byteCount: UInt64
    /// Read into or written from; stays valid and untouched until the request finishes. Nil where no data moves.
    ///
    /// SAFETY: of `byteCount` bytes, aligned as the image's storage asks; the queue that owns the tag owns the buffer.
    public var buffer: UnsafeMutableRawPointer?
    /// Where the data is instead, from the request's first byte on, or none. `buffer` is then nil, until the engine has borrowed
    /// memory for a request whose data it needs there (`EngineQueue.borrowMemory`).
    public var registered: RegisteredBuffer
    /// The data must survive a power cut before the request finishes (FUA).
    public var forcesUnitAccess: Bool
    /// Write zeroes only: keep the space reserved (NOUNMAP).
    public var keepsSpace: Bool

    public init(
        _ operation: BlockOperation, deviceOffset: UInt64 = 0, byteCount: UInt64 = 0,
        buffer: UnsafeMutableRawPointer? = nil, registered: RegisteredBuffer = .none, forcesUnitAccess: Bool = false,
        keepsSpace: Bool = false
    ) {
        self.operation = operation
        self.deviceOffset = deviceOffset
        self.byteCount = byteCount
        self.buffer = buffer
        self.registered = registered
        self.forcesUnitAccess = forcesUnitAccess
        self.keepsSpace = keepsSpace
    }

    var end: UInt64 { deviceOffset &+ byteCount }
}

/// What a request gets that asks for memory (`EngineQueue.lendMemory`).
public enum MemoryLoan {
    /// Until it finishes; as large as its data, and aligned as the image's storage asks.
    case lent(UnsafeMutableRawPointer)
    /// Not now: the request is not the engine's any more, and will be started again, with memory.
    case deferred
    /// A negative errno, with which the request is to be answered.
    case refused(Int32)
}

/// Why a request failed; its errno is what the block layer is told.
public enum RequestError: Error, Equatable, Sendable {
    /// Outside the device, or not whole sectors.
    case outOfRange
    /// A write, discard or flush to an image that was opened read-only.
    case readOnly
    /// A table entry that cannot be right stands where the request has to go.
    case corruptEntry(deviceOffset: UInt64)
    /// The file below answered an operation with an error.
    case storage(Errno)
    /// An earlier sync failed: what the disk holds is unknown, so nothing is promised any more until the image has been
    /// opened (and checked) again.
    case failedEarlier

    public var errno: Errno {
        switch self {
        case .outOfRange: .invalidArgument
        case .readOnly: .notPermitted
        case .corruptEntry, .failedEarlier: .ioError
        // EAGAIN would be taken for a wish to be asked again without waiting.
        case .storage(let errno): errno == .resourceTemporarilyUnavailable ? .ioError : errno
        }
    }
}
