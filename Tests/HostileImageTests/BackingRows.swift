import TestSupport

/// Rows 58 to 63, and what else is wrong with the place of a backing file's name: no command takes such an image.
enum BackingRows {
    static let all: [HostileImage] =
        [(64, 4033), (4096, 1), (0xffff_ffff, 0xffff_ffff), (64, 0xffff_ffff)].map { offset, size in
            HostileImage(
                58, "a name of \(size) bytes at \(offset)", .refused("does not fit in the header area of 4096")
            ) {
                $0 = .empty(clusterSize: 4096, tableSize: 2)
                $0.header.features = 5
                $0.header.backingFileNameOffset = UInt32(truncatingIfNeeded: offset)
                $0.header.backingFileNameSize = UInt32(truncatingIfNeeded: size)
            }
        }
        + [4096, 5000].map { size in
            HostileImage(60, "a name of \(size) bytes", .refused("has \(size) bytes, but must not have more than 4095")) {
                $0.setBackingFile(Array(repeating: 0x61, count: size), isRaw: true)
            }
        } + [
            HostileImage(61, "a name of 0 bytes", .refused("the backing file name is empty")) {
                $0.setBackingFile("", isRaw: true)
            },
            HostileImage(61, "a name that begins with NUL", .refused("has a NUL byte at position 0")) {
                $0.setBackingFile("\0base", isRaw: true)
            },
            HostileImage(62, "a name with a NUL in it", .refused("has a NUL byte at position 4")) {
                $0.setBackingFile("base\0/etc/passwd", isRaw: true)
            },
        ]
        + ([0, 1, 63] as [UInt64]).map { offset in
            HostileImage(63, "a name at offset \(offset)", .refused("overlaps the first 64 bytes")) {
                $0.header.features = 5
                $0.header.backingFileNameOffset = UInt32(offset)
                $0.header.backingFileNameSize = 8
            }
        }
}
