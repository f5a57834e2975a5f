import BlockStorage
import Glibc
import QEDEngine
import Testing

@testable import DeviceServer

/// What the block layer is told about the disk and its errors.
@Suite struct DeviceAnswerTests {
    @Test(
        "a file that may not grow has no space",
        arguments: [(EFBIG, ENOSPC), (EDQUOT, ENOSPC), (ENOSPC, ENOSPC), (EIO, EIO), (EROFS, EROFS)])
    func errors(below: Int32, told: Int32) {
        #expect(EngineTarget<FileStorage>.blockLayerError(-below) == -told)
    }

    /// Of clusters of 64 MiB the kernel would read 128 MiB ahead.
    @Test("what is read ahead is bounded", arguments: [(12, 12), (16, 16), (20, 20), (21, 20), (26, 20)] as [(Int, UInt8)])
    func readAhead(clusterShift: Int, shift: UInt8) {
        #expect(DiskArrival.optimalIOShift(clusterShift: clusterShift) == shift)
    }
}
