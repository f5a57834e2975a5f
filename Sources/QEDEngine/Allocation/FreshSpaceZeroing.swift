/// Whether space is zeroed by the disk when it is reserved.
///
/// A file system keeps account of reserved space that was never written, and has to change it with the first write to each
/// piece: half as much work as the write itself (`bench/zeroed-space.sh`). Where the disk zeroes the space when it is reserved
/// (Linux 6.17, and a disk that need not write for it), first writes are like later ones. A pure value.
struct FreshSpaceZeroing {
    /// The most that zeroing may take, beside a nanosecond for each byte: on a slower disk writes would wait for space.
    static let latencyNanoseconds: UInt64 = 10_000_000

    private(set) var isOn = true

    /// Kernel, file system or disk cannot.
    mutating func refused() { isOn = false }

    /// So many bytes were zeroed in so many nanoseconds.
    mutating func ended(byteCount: UInt64, nanoseconds: UInt64) {
        if nanoseconds > FreshSpaceZeroing.latencyNanoseconds &+ byteCount { isOn = false }
    }
}
