import CSupport
import Glibc

/// A disk, open past the page cache. Any thread; nothing is ordered but by the disk.
package final class BlockDevice: Sendable {
    package let sizeBytes: Int
    /// What every offset and length is a multiple of.
    package let blockSectors: Int
    private let descriptor: Int32

    /// - Throws: `BlockDeviceError`.
    package init(path: String, isReadOnly: Bool = false) throws {
        let found = cs_find(path, 0)
        guard found >= 0 else { throw BlockDeviceError(path: path, errno: -found) }
        defer { close(found) }
        descriptor = cs_open_found(found, path, (isReadOnly ? 0 : CS_OPEN_WRITE) | CS_OPEN_DIRECT)
        guard descriptor >= 0 else { throw BlockDeviceError(path: path, errno: -descriptor) }
        var size: UInt64 = 0
        var block: Int32 = 0
        guard ioctl(descriptor, BlockDevice.getSize, &size) == 0, ioctl(descriptor, BlockDevice.getBlockSize, &block) == 0
        else { throw BlockDeviceError(path: path, errno: errno) }
        sizeBytes = Int(size)
        blockSectors = max(Int(block) / 512, 1)
    }

    deinit { close(descriptor) }

    // Requests of linux/fs.h, which the importer does not see: BLKGETSIZE64, BLKSSZGET, BLKDISCARD, BLKZEROOUT.
    private static let getSize: UInt = 0x8008_1272
    private static let getBlockSize: UInt = 0x1268
    private static let discardRange: UInt = 0x1277
    private static let zeroRange: UInt = 0x127f

    /// - Returns: 0 or a positive errno. A short transfer is EIO.
    package func read(_ buffer: UnsafeMutableRawPointer, offset: Int, byteCount: Int) -> Int32 {
        transfer(byteCount) { pread(descriptor, buffer, byteCount, off_t(offset)) }
    }

    package func write(_ buffer: UnsafeMutableRawPointer, offset: Int, byteCount: Int) -> Int32 {
        transfer(byteCount) { pwrite(descriptor, buffer, byteCount, off_t(offset)) }
    }

    package func flush() -> Int32 { fdatasync(descriptor) == 0 ? 0 : errno }

    package func discard(offset: Int, byteCount: Int) -> Int32 { request(BlockDevice.discardRange, offset, byteCount) }

    /// Keeps the space (NOUNMAP).
    package func zero(offset: Int, byteCount: Int) -> Int32 { request(BlockDevice.zeroRange, offset, byteCount) }

    /// Gives the space back.
    package func punch(offset: Int, byteCount: Int) -> Int32 {
        -cs_fallocate(descriptor, CS_FALLOCATE_PUNCH_HOLE, UInt64(offset), UInt64(byteCount))
    }

    private func request(_ number: UInt, _ offset: Int, _ byteCount: Int) -> Int32 {
        var range = (UInt64(offset), UInt64(byteCount))
        return ioctl(descriptor, number, &range) == 0 ? 0 : errno
    }

    private func transfer(_ byteCount: Int, _ call: () -> Int) -> Int32 {
        while true {
            let count = call()
            if count == byteCount { return 0 }
            // The kill window is opened and closed by signals.
            if count < 0 && errno == EINTR { continue }
            return count < 0 ? errno : EIO
        }
    }
}

package struct BlockDeviceError: Error, CustomStringConvertible {
    package let path: String
    package let errno: Int32

    package var description: String { "\(path): \(String(cString: strerror(errno))); name a block device that nobody uses" }
}

/// Page-aligned memory.
package final class AlignedBuffer {
    // SAFETY: allocated here, freed in deinit; one thread's.
    package let address: UnsafeMutableRawPointer

    package init(byteCount: Int) { address = .allocate(byteCount: byteCount, alignment: 4096) }

    deinit { address.deallocate() }
}
