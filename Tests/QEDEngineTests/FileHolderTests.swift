import Testing

@testable import BlockStorage

@Suite struct FileHolderTests {
    @Test func locksAsTheKernelShowsThem() throws {
        let shared = try #require(HeldLock("lock:\t1: OFDLCK ADVISORY  READ -1 fd:01:131081 100 101"))
        #expect(!shared.isExclusive && shared.device == "fd:01" && shared.inode == 131_081 && shared.bytes == 100...101)
        let exclusive = try #require(HeldLock("lock:\t12: POSIX  ADVISORY  WRITE 4711 08:10:7 0 EOF"))
        #expect(exclusive.isExclusive && exclusive.device == "08:10" && exclusive.bytes == 0...UInt64.max)
    }

    @Test(
        "what is no lock on an image",
        arguments: [
            "", "pos:\t0", "lock:\t1: FLOCK  ADVISORY  WRITE 4711 08:10:7 0 EOF",
            "lock:\t1: LEASE  ACTIVE    READ 1 08:10:7 0 EOF",
            "lock:\t1: OFDLCK ADVISORY  READ -1 08:10 100 101", "lock:\t1: OFDLCK ADVISORY  READ -1 08:10:7 101 100",
            "lock:\t1: OFDLCK ADVISORY  READ -1 08:10:x 100 101", "lock:\t1: OFDLCK ADVISORY  READ -1 08:10:7 100",
        ])
    func others(line: String) { #expect(HeldLock(Substring(line)) == nil) }

    @Test func devicesAsTheKernelShowsThem() {
        #expect(HeldLock.device(0x0810) == "08:10")
        #expect(HeldLock.device(0xfd01) == "fd:01")
        #expect(HeldLock.device(0x10_0305) == "03:105")
    }

    /// Bytes 100 to 103 are uses, bytes 200 to 203 refusals of them: read, write, write unchanged, resize.
    @Test func onlyLocksThatAreInTheWayCount() {
        #expect(FileLock.writable.isRefused(bytes: 200...200, isExclusive: false))
        #expect(FileLock.writable.isRefused(bytes: 101...101, isExclusive: false))
        #expect(!FileLock.writable.isRefused(bytes: 100...100, isExclusive: false))
        #expect(FileLock.writable.isRefused(bytes: 100...100, isExclusive: true))
        #expect(FileLock.readOnly.isRefused(bytes: 103...103, isExclusive: false))
        #expect(!FileLock.readOnly.isRefused(bytes: 201...203, isExclusive: false))
        #expect(FileLock.readOnly.isRefused(bytes: 0...UInt64.max, isExclusive: false))
        #expect(!FileLock.readOnly.isRefused(bytes: 0...99, isExclusive: true))
    }
}
