import IOURing
import SystemPackage

/// What an engine may ask of the file below it: the operations whose order matters after a crash, and nothing else.
///
/// Offsets and lengths are bytes in the file. Buffers stay valid, and the caller leaves them alone, until the completion.
public enum StorageOperation {
    /// Result: bytes read; fewer than asked only at the end of the file.
    case read(UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64)
    /// Result: bytes written.
    case write(UnsafeRawPointer, byteCount: UInt32, fileOffset: UInt64)
    /// One write gathered from several buffers. The vectors too stay valid until the completion.
    case writeGathered(UnsafePointer<IOVector>, vectorCount: UInt32, fileOffset: UInt64)
    /// What was completed before this was submitted survives a power cut once this completes with 0, the file's
    /// length included (`fdatasync`). It is not ordered after operations that are still in flight.
    case sync
    /// Reserves space, and makes the file at least `fileOffset + byteCount` long. What was never written reads as zeros.
    ///
    /// With `zeroed` the disk is told to zero the range, whatever is there, so that the file system counts it as written, and
    /// a first write costs no more than a later one. `EOPNOTSUPP` where kernel (before Linux 6.17), file system or disk cannot.
    case allocate(fileOffset: UInt64, byteCount: UInt64, zeroed: Bool)
    /// The range reads as zeros afterwards; its space goes back to the host. The length stays.
    case punchHole(fileOffset: UInt64, byteCount: UInt64)
    /// The range reads as zeros afterwards; its space stays reserved. The length stays.
    case zeroRange(fileOffset: UInt64, byteCount: UInt64)
}

/// A piece of a gathered write: `struct iovec`, as the kernel lays it out on 64-bit machines.
@frozen
public struct IOVector {
    public var base: UnsafeRawPointer?
    public var byteCount: Int

    @inlinable @inline(__always)
    public init(base: UnsafeRawPointer?, byteCount: Int) {
        self.base = base
        self.byteCount = byteCount
    }
}

/// A place in a buffer that is registered with the queue's ring; or none. One word, as every request carries it.
@frozen
public struct RegisteredBuffer: Equatable, Sendable {
    @usableFromInline let word: UInt64

    /// - Parameter address: in the terms of the registration, below 2^48: of memory its address, of a block request's
    ///   pages the byte in the request.
    @inlinable @inline(__always)
    public init(index: UInt16, address: UInt64) {
        word = UInt64(index) << 48 | address & 0xffff_ffff_ffff
    }

    @inlinable @inline(__always)
    init(word: UInt64) { self.word = word }

    /// The index that it would have is beyond what a ring can hold.
    @inlinable public static var none: RegisteredBuffer {
        @inline(__always) get { RegisteredBuffer(word: .max) }
    }

    @inlinable @inline(__always) public var isNone: Bool { word == .max }
    @inlinable @inline(__always) public var index: UInt16 { UInt16(truncatingIfNeeded: word >> 48) }
    @inlinable @inline(__always) public var address: UInt64 { word & 0xffff_ffff_ffff }

    @inlinable @inline(__always)
    public func advanced(by byteCount: UInt64) -> RegisteredBuffer { RegisteredBuffer(word: word &+ byteCount) }
}

/// Moves bytes between a file and a registered buffer, whose pages may be out of reach for this process.
/// The result is that of a read or write; `EINVAL` also where the file cannot take the pages as they are.
@frozen
public struct RegisteredTransfer {
    public var isWrite: Bool
    public var buffer: RegisteredBuffer
    public var byteCount: UInt32
    public var fileOffset: UInt64

    @inlinable @inline(__always)
    public init(isWrite: Bool, buffer: RegisteredBuffer, byteCount: UInt32, fileOffset: UInt64) {
        self.isWrite = isWrite
        self.buffer = buffer
        self.byteCount = byteCount
        self.fileOffset = fileOffset
    }
}

/// A file as one queue sees it: operations go in with a token, the token comes back with the result on the same thread.
///
/// The engine is generic over this protocol; what ships is `FileStorage`. A value per queue and file, cheap to copy.
public protocol Storage: BaseStorage {
    /// Starts an operation. It reaches the file when the owner of the queue next enters the kernel.
    /// The completion carries `token` and a result as documented at the operation, or a negative errno.
    func submit(_ operation: StorageOperation, token: CompletionToken)

    /// Makes the file exactly this long. What it gains reads as zeros.
    /// - Throws: the errno of `ftruncate`; interruptions are retried here, as the operations' waiting forms do (`patiently`).
    func setLength(_ sizeBytes: UInt64) async throws(StorageError)

    /// What `findData` tells. The file system may have to read its tables for the answer: the calling thread waits for it.
    func nextData(from fileOffset: UInt64) -> Range<UInt64>?

    /// Whether its file system has so much room, and what nobody should take who can do without: a sixteenth of it.
    func hasRoomToSpare(besides byteCount: UInt64) async -> Bool

    /// How long the file is now.
    func length() async throws(StorageError) -> UInt64

    /// Nanoseconds of a clock that does not go back.
    var nanoseconds: UInt64 { get }
}

extension Storage {
    @inlinable @inline(__always)
    public func submitRead(
        into buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64, token: CompletionToken
    ) {
        submit(.read(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token)
    }

    public var takesRegisteredBuffers: Bool { true }

    public func hasRoomToSpare(besides byteCount: UInt64) async -> Bool { true }

    public func submit(_ transfer: RegisteredTransfer, token: CompletionToken) {
        preconditionFailure("no buffer can be registered with this storage")
    }

    /// For storage whose `nextData` waits for nothing.
    public func findData(from fileOffset: UInt64) async -> Range<UInt64>? { nextData(from: fileOffset) }
}

/// The multiples that a file asks for: those of direct I/O, or 1.
@frozen
public struct StorageAlignment: Equatable, Sendable {
    /// Of file offsets and lengths.
    public var offsetBytes: Int
    /// Of buffer addresses.
    public var memoryBytes: Int

    public init(offsetBytes: Int, memoryBytes: Int) {
        self.offsetBytes = offsetBytes
        self.memoryBytes = memoryBytes
    }

    /// Buffered I/O takes anything.
    public static let none = StorageAlignment(offsetBytes: 1, memoryBytes: 1)
}

/// A storage operation that failed: which one, where, and why.
public struct StorageError: Error, Equatable, Sendable, CustomStringConvertible {
    public enum Operation: String, Sendable {
        case read, write, sync, allocate
        case punchHole = "punch hole"
        case zeroRange = "zero range"
        case setLength = "set length"
        case length
    }

    public var operation: Operation
    public var fileOffset: UInt64
    public var byteCount: UInt64
    public var errno: Errno

    public init(_ operation: Operation, fileOffset: UInt64 = 0, byteCount: UInt64 = 0, errno: Errno) {
        self.operation = operation
        self.fileOffset = fileOffset
        self.byteCount = byteCount
        self.errno = errno
    }

    public var description: String {
        switch operation {
        case .sync, .setLength, .length: "\(operation.rawValue): \(errno)"
        default: "\(operation.rawValue) of \(byteCount) bytes at file offset \(fileOffset): \(errno)"
        }
    }
}
