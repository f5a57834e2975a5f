import CSupport
import Glibc
import IOURing
import SystemPackage
import Testing

/// What io_uring does no filter of system calls sees: a queue's ring can do what a queue does, and nothing else.
@Suite struct RingRestrictionTests {
    private func result(of operation: UInt8) throws -> Int32 {
        let ring = try Ring.create(entries: 8, completionEntries: 16, setup: .queue)
        defer { ring.close() }
        let sqe = ring.nextSubmission()
        cs_prep(sqe, operation, -1, 0, 0, 0, 1)
        var result: Int32 = 1
        ring.submitAndWait()
        ring.drain { _, completion in result = completion }
        return result
    }

    @Test func whatAQueueDoes() throws {
        #expect(try result(of: UInt8(IORING_OP_NOP.rawValue)) == 0)
        // There is no file, and that is looked at.
        #expect(try result(of: UInt8(IORING_OP_FSYNC.rawValue)) == -EBADF)
    }

    @Test(
        "what opens, connects, renames or removes",
        arguments: [
            IORING_OP_OPENAT, IORING_OP_OPENAT2, IORING_OP_CLOSE, IORING_OP_STATX, IORING_OP_CONNECT, IORING_OP_ACCEPT,
            IORING_OP_SENDMSG, IORING_OP_RECVMSG, IORING_OP_SEND, IORING_OP_RENAMEAT, IORING_OP_UNLINKAT, IORING_OP_MKDIRAT,
            IORING_OP_LINKAT, IORING_OP_SYMLINKAT, IORING_OP_SPLICE, IORING_OP_MADVISE, IORING_OP_FILES_UPDATE, IORING_OP_SOCKET,
        ])
    func whatItDoesNot(operation: cs_io_uring_op) throws {
        #expect(try result(of: UInt8(operation.rawValue)) == -EACCES)
    }
}
