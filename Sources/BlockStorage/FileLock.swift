import CSupport
import SystemPackage

/// QEMU's image locks: shared open-file-description locks on single bytes of the file.
///
/// Byte 100+i says "I use permission i", byte 200+i "I let nobody else use it". Every byte wanted is taken first and the
/// others' bytes are tested afterwards, so of two programs that race at least one gives up. The kernel releases the locks
/// when the last descriptor of the open file description is closed, at a kill too.
public enum FileLock: Sendable, Equatable {
    /// An image that is written: nobody else may write or resize it (QEMU's read-write set).
    case writable
    /// An image or backing file that is read: nobody may write or resize it meanwhile (QEMU's read-only set).
    case readOnly

    private var used: [UInt64] {
        switch self {
        case .writable: [Permission.consistentRead, Permission.write, Permission.resize]
        case .readOnly: [Permission.consistentRead]
        }
    }

    private var denied: [UInt64] { [Permission.write, Permission.resize] }

    private enum Permission {
        static let consistentRead: UInt64 = 0
        static let write: UInt64 = 1
        static let resize: UInt64 = 3
    }

    private static let usedBase: UInt64 = 100
    private static let deniedBase: UInt64 = 200

    private var takenBytes: [UInt64] {
        used.map { FileLock.usedBase + $0 } + denied.map { FileLock.deniedBase + $0 }
    }

    /// The bytes on which another program's lock, shared or not, is in the way.
    private var bytesOfOthers: [UInt64] {
        used.map { FileLock.deniedBase + $0 } + denied.map { FileLock.usedBase + $0 }
    }

    /// Whether this lock cannot be had while another program holds one on `bytes`.
    func isRefused(bytes: ClosedRange<UInt64>, isExclusive: Bool) -> Bool {
        (bytesOfOthers + (isExclusive ? takenBytes : [])).contains(where: bytes.contains)
    }

    /// As `take`, and tries again for a while when it is held: the kernel lets go of a killed program's files only after
    /// the last of their I/O has ended.
    public func takePatiently(on descriptor: Int32) throws(Errno) {
        for _ in 0..<20 {
            do { return try take(on: descriptor) } catch .resourceTemporarilyUnavailable { cs_sleep_milliseconds(50) }
        }
        try take(on: descriptor)
    }

    /// Gives the lock back. Closing the descriptor does so too, but not before a ring that has used it is gone.
    public func release(on descriptor: Int32) {
        for byte in takenBytes { _ = cs_unlock_byte(descriptor, byte) }
    }

    /// Makes the lock of a file that is written one of a file that is only read from now on: others may read it, too.
    static func releaseWriting(on descriptor: Int32) {
        for byte in FileLock.writable.used where !FileLock.readOnly.used.contains(byte) {
            _ = cs_unlock_byte(descriptor, usedBase + byte)
        }
    }

    /// Takes the lock on `descriptor`'s open file description, without waiting.
    /// - Parameter held: what is locked there already, and stays so whatever comes of this.
    /// - Throws: `resourceTemporarilyUnavailable` where another program holds a lock that forbids it; any other errno
    ///   where the file system has no such locks. Nothing more stays locked then.
    public func take(on descriptor: Int32, holding held: FileLock? = nil) throws(Errno) {
        let before = held?.takenBytes ?? []
        let taken = takenBytes.filter { !before.contains($0) }
        var failure: Errno?
        for byte in taken where failure == nil {
            let result = cs_lock_byte_shared(descriptor, byte)
            if result < 0 { failure = Errno(rawValue: -result) }
        }
        for byte in bytesOfOthers where failure == nil {
            let result = cs_byte_is_locked(descriptor, byte)
            if result < 0 { failure = Errno(rawValue: -result) }
            if result > 0 { failure = .resourceTemporarilyUnavailable }
        }
        if let failure {
            for byte in taken { _ = cs_unlock_byte(descriptor, byte) }
            throw failure
        }
    }
}
