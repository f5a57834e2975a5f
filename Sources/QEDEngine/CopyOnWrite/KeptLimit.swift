import Platform
import QEDFormat

/// An image that has nothing but what is beneath it as well need not have all of it: a bound on its size.
///
/// The engine stops to keep what is read where the image's file has reached its limit; to make room is its owner's, who puts an
/// empty overlay over it, and takes away the one beneath it (`NextChain.of(_:withoutKept:)`).
extension Image {
    /// So much of its limit is left, at the least, when an image counts as full: parts of several requests may be under way.
    private static let fullShare: UInt64 = 16

    /// Whether nothing more is to be kept. Under the lock.
    func isFull(_ cursor: AllocationCursor) -> Bool {
        guard let keptLimitBytes else { return false }
        return cursor.nextFileOffset + keptLimitBytes / Image.fullShare + 2 * geometry.tableSizeBytes > keptLimitBytes
    }

    /// Whether it is time to make room, before nothing can be kept any more. Any thread.
    public var wantsRoomForReads: Bool {
        guard let keptLimitBytes else { return false }
        return state.withLock { $0.cursor.nextFileOffset } + 2 * (keptLimitBytes / Image.fullShare) + 2 * geometry.tableSizeBytes
            > keptLimitBytes
    }
}
