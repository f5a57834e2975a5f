/// The 64-bit word that travels through the kernel with an operation and comes back with its result.
///
/// It is one of three things, told apart by its lowest bits:
/// - `…0`: the address of a suspended task's continuation (they are 8-byte aligned). Nothing is allocated to await a completion.
/// - `…01`: an *inline* token: a class chosen by the owner of the ring, a request slot and a detail. Handled in the
///   completion loop without any task.
/// - `…11`: the ring's own wake-up.
public struct CompletionToken: RawRepresentable, Equatable, Sendable {
    public let rawValue: UInt64

    @inlinable @inline(__always)
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// An inline token. `kind` has 6 bits, `slot` 24 and `detail` 32.
    @inlinable @inline(__always)
    public init(kind: UInt8, slot: Int, detail: UInt32 = 0) {
        rawValue =
            0b01 | (UInt64(kind) & 0x3f) << 2 | (UInt64(truncatingIfNeeded: slot) & 0xff_ffff) << 8
            | UInt64(detail) << 32
    }

    /// Its completion is ignored.
    public static let wakeUp = CompletionToken(rawValue: 0b11)

    @inlinable @inline(__always) public var isContinuation: Bool { rawValue & 1 == 0 }
    @inlinable @inline(__always) public var isInline: Bool { rawValue & 0b11 == 0b01 }
    @inlinable @inline(__always) public var kind: UInt8 { UInt8(truncatingIfNeeded: rawValue >> 2) & 0x3f }
    @inlinable @inline(__always) public var slot: Int { Int(truncatingIfNeeded: (rawValue >> 8) & 0xff_ffff) }
    @inlinable @inline(__always) public var detail: UInt32 { UInt32(truncatingIfNeeded: rawValue >> 32) }
}

/// A task that waits for one completion: its result is the operation's (a count, or a negative errno).
public typealias CompletionContinuation = UnsafeContinuation<Int32, Never>

extension CompletionToken {
    /// SAFETY: a continuation is one pointer to the suspended task, which stays alive until it is resumed; the kernel
    /// returns each token exactly once, so it is resumed exactly once.
    @inlinable @inline(__always)
    public init(_ continuation: CompletionContinuation) {
        rawValue = UInt64(UInt(bitPattern: unsafeBitCast(continuation, to: UnsafeRawPointer.self)))
    }

    /// Resumes the task that waits for this token.
    ///
    /// SAFETY: only tokens made by `init(_: CompletionContinuation)` are even.
    @inlinable @inline(__always)
    public func resume(returning result: Int32) {
        precondition(isContinuation && rawValue != 0, "not a continuation's token")
        unsafeBitCast(UInt(rawValue), to: CompletionContinuation.self).resume(returning: result)
    }
}
