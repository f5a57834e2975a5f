import CSupport
import Glibc
import IOURing
import Platform
import SystemPackage

/// A file on one queue's io_uring. The storage that ships.
///
/// Belongs to the ring's thread. Does not own the descriptor: the `ImageFile` that made it does, and outlives it.
@frozen
public struct FileStorage: Storage {
    @usableFromInline let ring: Ring
    @usableFromInline let descriptor: Int32
    public let alignment: StorageAlignment
    public let tellsHolesTruly: Bool

    @inlinable
    public init(ring: Ring, descriptor: Int32, alignment: StorageAlignment, tellsHolesTruly: Bool) {
        self.ring = ring
        self.descriptor = descriptor
        self.alignment = alignment
        self.tellsHolesTruly = tellsHolesTruly
    }

    @inlinable @inline(__always)
    public func submit(_ operation: StorageOperation, token: CompletionToken) {
        let sqe = ring.nextSubmission()
        switch operation {
        case .read(let buffer, let byteCount, let fileOffset):
            cs_prep_read(sqe, descriptor, buffer, byteCount, fileOffset, token.rawValue)
        case .write(let buffer, let byteCount, let fileOffset):
            cs_prep_write(sqe, descriptor, buffer, byteCount, fileOffset, token.rawValue)
        case .writeGathered(let vectors, let vectorCount, let fileOffset):
            // SAFETY: IOVector has the layout of struct iovec (asserted in ImageFile.swift).
            cs_prep_writev(
                sqe, descriptor, UnsafeRawPointer(vectors).assumingMemoryBound(to: iovec.self), vectorCount, fileOffset,
                token.rawValue)
        case .sync:
            cs_prep_fdatasync(sqe, descriptor, token.rawValue)
        case .allocate(let fileOffset, let byteCount, let zeroed):
            let mode: Int32 = zeroed ? CS_FALLOCATE_WRITE_ZEROES : 0
            cs_prep_fallocate(sqe, descriptor, mode, fileOffset, byteCount, token.rawValue)
        case .punchHole(let fileOffset, let byteCount):
            cs_prep_fallocate(sqe, descriptor, CS_FALLOCATE_PUNCH_HOLE, fileOffset, byteCount, token.rawValue)
        case .zeroRange(let fileOffset, let byteCount):
            cs_prep_fallocate(sqe, descriptor, CS_FALLOCATE_ZERO_RANGE, fileOffset, byteCount, token.rawValue)
        }
    }

    public func submit(_ transfer: RegisteredTransfer, token: CompletionToken) {
        cs_prep_fixed(
            ring.nextSubmission(), transfer.isWrite ? 1 : 0, descriptor, transfer.buffer.index, transfer.buffer.address,
            transfer.byteCount, transfer.fileOffset, token.rawValue)
    }

    /// A plain system call: io_uring has this operation only from Linux 6.9, and it is rare (idle and close).
    public func setLength(_ sizeBytes: UInt64) async throws(StorageError) {
        let descriptor = self.descriptor
        let result = await patiently { Int32(await BlockingCalls.shared.run { Int64(cs_ftruncate(descriptor, sizeBytes)) }) }
        guard result == 0 else { throw StorageError(.setLength, errno: Errno(rawValue: -result)) }
    }

    public func nextData(from fileOffset: UInt64) -> Range<UInt64>? {
        FileStorage.nextData(in: descriptor, from: fileOffset)
    }

    static func nextData(in descriptor: Int32, from fileOffset: UInt64) -> Range<UInt64>? {
        var start: UInt64 = 0
        var end: UInt64 = 0
        return cs_next_data(descriptor, fileOffset, &start, &end) == 0 && start <= end ? start..<end : nil
    }

    public func findData(from fileOffset: UInt64) async -> Range<UInt64>? {
        let storage = self
        let found = Lock<Range<UInt64>?>(nil)
        _ = await BlockingCalls.shared.run {
            let data = storage.nextData(from: fileOffset)
            found.withLock { $0 = data }
            return 0
        }
        return found.withLock { $0 }
    }

    public func hasRoomToSpare(besides byteCount: UInt64) async -> Bool {
        let descriptor = self.descriptor
        return await BlockingCalls.shared.run {
            var status = statvfs()
            guard fstatvfs(descriptor, &status) == 0, status.f_frsize > 0 else { return 0 }
            return UInt64(status.f_bavail) > UInt64(status.f_blocks) / 16 + byteCount / UInt64(status.f_frsize) ? 1 : 0
        } == 1
    }

    public func length() async throws(StorageError) -> UInt64 {
        let result = cs_file_length(descriptor)
        guard result >= 0 else { throw StorageError(.length, errno: Errno(rawValue: Int32(-result))) }
        return UInt64(result)
    }

    public var nanoseconds: UInt64 { cs_monotonic_nanoseconds() }

    public func pause(nanoseconds: UInt64) async { await ring.pause(nanoseconds: nanoseconds) }
}
