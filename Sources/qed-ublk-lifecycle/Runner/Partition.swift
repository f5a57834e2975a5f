import Glibc

/// A partition that is given to a disk without a table.
enum Partition {
    // struct blkpg_partition and struct blkpg_ioctl_arg of linux/blkpg.h.
    private struct Description {
        var start: Int64
        var length: Int64
        var number: Int32
        // SAFETY of the layout: two names of 64 bytes follow, and the whole is a multiple of 8.
        var names: (Int32, InlineArray<32, Int32>) = (0, InlineArray(repeating: 0))
    }

    private struct Argument {
        var operation: Int32 = 1  // BLKPG_ADD_PARTITION
        var flags: Int32 = 0
        var size: Int32
        var data: UnsafeMutableRawPointer
    }

    private static let request: UInt = 0x1269  // BLKPG

    /// - Returns: 0 or an errno; EBUSY where there is one already.
    static func add(to path: String, number: Int32) -> Int32 {
        let disk = open(path, O_RDONLY | O_CLOEXEC)
        guard disk >= 0 else { return errno }
        defer { close(disk) }
        var description = Description(
            start: Int64(Layout.partition.lowerBound), length: Int64(Layout.partition.count), number: number)
        return withUnsafeMutableBytes(of: &description) { bytes in
            var argument = Argument(size: Int32(bytes.count), data: bytes.baseAddress.unsafelyUnwrapped)
            return ioctl(disk, request, &argument) == 0 ? 0 : errno
        }
    }
}
