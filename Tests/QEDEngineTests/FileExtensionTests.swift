import Glibc
import SystemPackage
import Testing

@testable import QEDEngine

@Suite struct FileExtensionTests {
    private static let cluster: UInt64 = 65536

    private func makeExtension(_ clusters: UInt64, atLeast least: UInt64 = 1, zeroes: Bool = false) -> FileExtension {
        let start = 7 * Self.cluster
        return FileExtension(
            from: start, to: start + clusters * Self.cluster, atLeast: start + least * Self.cluster, zeroes: zeroes,
            clusterSizeBytes: Self.cluster)
    }

    @Test func fileSystemsThatCanDoLess() {
        var attempt = makeExtension(16, zeroes: true)
        #expect(attempt.step == .zeroedSpace)
        #expect(attempt.refused(.notSupported) == .tryAgain && attempt.step == .space)
        #expect(attempt.refused(.notSupported) == .tryAgain && attempt.step == .lengthAlone)
        #expect(attempt.refused(.notSupported) == .giveUp(.notSupported))
        #expect(attempt.byteCount == 16 * Self.cluster)
    }

    @Test("a kernel without fallocate", arguments: [false, true])
    func noFallocate(zeroes: Bool) {
        var attempt = makeExtension(16, zeroes: zeroes)
        #expect(attempt.refused(Errno(rawValue: ENOSYS)) == .tryAgain && attempt.step == .lengthAlone)
    }

    /// Half as much, in whole clusters, down to what is needed.
    @Test("space that is short", arguments: [ENOSPC, EFBIG, EDQUOT], [false, true])
    func shortSpace(code: CInt, zeroes: Bool) {
        var attempt = makeExtension(21, atLeast: 3, zeroes: zeroes)
        var reached: [UInt64] = []
        while attempt.refused(Errno(rawValue: code)) == .tryAgain { reached.append(attempt.byteCount / Self.cluster) }
        #expect(reached == [10, 5, 3])
        #expect(attempt.refused(Errno(rawValue: code)) == .giveUp(Errno(rawValue: code)))
        #expect(attempt.step == (zeroes ? .zeroedSpace : .space))
    }

    @Test func lengthThatIsRefusedIsRefused() {
        var attempt = makeExtension(16)
        _ = attempt.refused(.notSupported)
        #expect(attempt.refused(.noSpace) == .giveUp(.noSpace) && attempt.byteCount == 16 * Self.cluster)
    }

    @Test func whateverElseFailsIsAnError() {
        for errno in [Errno.ioError, .readOnlyFileSystem, .interrupted] {
            var attempt = makeExtension(16)
            #expect(attempt.refused(errno) == .giveUp(errno))
        }
    }
}
