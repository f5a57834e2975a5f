import CSupport
import Glibc
import SystemPackage

/// Which ring another thread has. It must not be closed before the last use.
public struct RingAddress: Hashable, Sendable {
    let descriptor: Int32
}

/// How a ring is set up. The names are the kernel's (`IORING_SETUP_…`).
public struct RingSetup: OptionSet, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// 128-byte submission entries, which ublk's control commands need.
    public static let wideSubmissions = RingSetup(rawValue: CS_SETUP_SQE128)
    /// Completions are run when the owner enters the kernel, not by an interrupt (5.19).
    public static let cooperativeTaskRun = RingSetup(rawValue: CS_SETUP_COOP_TASKRUN)
    /// One thread submits for the ring's whole life; it is the thread that creates it (6.0).
    public static let singleIssuer = RingSetup(rawValue: CS_SETUP_SINGLE_ISSUER)
    /// Completions are run only when the owner waits for them (6.1). Needs `singleIssuer`.
    public static let deferredTaskRun = RingSetup(rawValue: CS_SETUP_DEFER_TASKRUN)

    /// It is enabled by `Ring.create`, once it can do no more than serving takes (restrictions, 5.10).
    static let disabledAtFirst = RingSetup(rawValue: CS_SETUP_R_DISABLED)

    /// What a queue's ring uses: the fewest interruptions the kernel offers, and only what a queue does.
    public static let queue: RingSetup = [.cooperativeTaskRun, .singleIssuer, .deferredTaskRun, .disabledAtFirst]
}

/// An io_uring: a reference to one, cheap to copy, without reference counting.
///
/// Everything but `create` must be called on the thread that created the ring. Whoever creates it closes it, after
/// the last operation has completed.
public struct Ring: @unchecked Sendable {
    // SAFETY: the pointer is valid from `create` to `close`; the thread rule above replaces locks.
    @usableFromInline let pointer: UnsafeMutablePointer<io_uring>

    /// Creates a ring of at least `entries` submissions and `completionEntries` completions.
    ///
    /// Falls back to plainer set-ups on kernels that lack `deferredTaskRun` (before 6.1).
    /// - Throws: the errno of `io_uring_setup`; `ENOSYS` or `EPERM` where io_uring is missing or forbidden.
    public static func create(
        entries: UInt32, completionEntries: UInt32, setup: RingSetup
    ) throws(Errno) -> Ring {
        let pointer = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        var flags = setup.rawValue | CS_SETUP_CQSIZE
        var result = cs_ring_init(pointer, entries, flags, completionEntries)
        if result == -EINVAL && setup.contains(.deferredTaskRun) {
            flags &= ~(CS_SETUP_DEFER_TASKRUN | CS_SETUP_SINGLE_ISSUER)
            result = cs_ring_init(pointer, entries, flags, completionEntries)
        }
        guard result == 0 else {
            pointer.deallocate()
            throw Errno(rawValue: -result)
        }
        if setup.contains(.disabledAtFirst) {
            let result = cs_ring_restrict_and_enable(pointer)
            guard result == 0 else {
                Ring(pointer: pointer).close()
                throw Errno(rawValue: -result)
            }
        }
        return Ring(pointer: pointer)
    }

    private init(pointer: UnsafeMutablePointer<io_uring>) { self.pointer = pointer }

    /// Unmaps and closes the ring. Operations in flight are cancelled by the kernel; their buffers must stay valid until
    /// the process has let go of the ring, so let them complete first.
    public func close() {
        io_uring_queue_exit(pointer)
        pointer.deallocate()
    }

    /// A free submission entry. When the submission queue is full what it holds is submitted first.
    @inlinable @inline(__always)
    public func nextSubmission() -> UnsafeMutablePointer<cs_io_uring_sqe> {
        if let sqe = cs_get_sqe(pointer) { return sqe }
        return makeRoom()
    }

    @usableFromInline @inline(never)
    func makeRoom() -> UnsafeMutablePointer<cs_io_uring_sqe> {
        while true {
            let result = cs_submit(pointer)
            if let sqe = cs_get_sqe(pointer) { return sqe }
            // EBUSY and EAGAIN: the completion queue has overflowed or memory is short. Reaping is the owner's, but the
            // overflow list is flushed by entering the kernel for events.
            switch -result {
            case EBUSY, EAGAIN, EINTR: _ = cs_submit_and_get_events(pointer)
            default: precondition(result >= 0, "io_uring refuses submissions: errno \(-result)")
            }
        }
    }

    /// Prepares a timer: its completion comes after the interval, with `-ETIME`.
    /// - Parameter interval: to be kept until that was submitted.
    public func submit(_ interval: RingInterval, token: CompletionToken) {
        cs_prep_timeout(nextSubmission(), interval.pointer, token.rawValue)
    }

    /// Suspends a task of this ring's thread for about so long.
    public func pause(nanoseconds: UInt64) async {
        let interval = RingInterval(nanoseconds: nanoseconds)
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            submit(interval, token: CompletionToken(continuation))
        }
        withExtendedLifetime(interval) {}
    }

    /// Where other threads' rings find it, as long as it is not closed.
    public var address: RingAddress { RingAddress(descriptor: pointer.pointee.ring_fd) }

    /// Has the ring at `address` get a completion, as if an operation of its own had ended: on its thread, with the next ones
    /// that it takes. Waits until it is there. This ring was made without `disabledAtFirst`, and has nothing else under way.
    public func complete(_ token: CompletionToken, _ result: Int32, at address: RingAddress) {
        while true {
            cs_prep_message(nextSubmission(), address.descriptor, result, token.rawValue, CompletionToken.wakeUp.rawValue)
            submitAndWait(timeoutNanoseconds: nil)
            var outcome: Int32 = 0
            drain { _, result in outcome = result }
            switch -outcome {
            case ...0: return
            // The other ring is full, or memory is short: its thread is about to take what is there.
            case EOVERFLOW, EAGAIN, ENOMEM, EINTR: usleep(1000)
            default: preconditionFailure("a ring takes no message: errno \(-outcome)")
            }
        }
    }

    /// Submits what is prepared, without waiting.
    /// - Returns: 0 or more: how many were submitted; negative: the errno.
    @inlinable @inline(__always) @discardableResult
    public func submit() -> Int32 { cs_submit(pointer) }

    /// Submits what is prepared and waits until at least one completion is there, a signal arrives or the timeout has passed.
    /// - Parameter timeoutNanoseconds: nil waits for ever.
    @inlinable @inline(__always)
    public func submitAndWait(timeoutNanoseconds: Int64? = nil) {
        _ = cs_submit_and_wait(pointer, 1, timeoutNanoseconds ?? -1)
    }

    /// Submits what is prepared and runs completions that are due, without waiting.
    @inlinable @inline(__always)
    public func submitAndPoll() { _ = cs_submit_and_get_events(pointer) }

    /// Hands every completion that is there to `body`, in order, and frees their entries afterwards.
    @inlinable @inline(__always) @discardableResult
    public func drain(_ body: (CompletionToken, Int32) -> Void) -> UInt32 {
        let count = cs_cq_ready(pointer)
        var index: UInt32 = 0
        while index < count {
            if let cqe = cs_cqe_at(pointer, index) {
                body(CompletionToken(rawValue: cqe.pointee.user_data), cqe.pointee.res)
            }
            index &+= 1
        }
        cs_cq_advance(pointer, count)
        return count
    }

    /// Whether submissions are prepared that the kernel has not seen.
    @inlinable @inline(__always)
    public var hasUnsubmitted: Bool { cs_sq_ready(pointer) > 0 }

    /// Makes a table of `count` registered buffers, all of them empty: somebody else fills it, as ublk's driver does.
    /// - Throws: the errno of `io_uring_register`; `EINVAL` before Linux 5.19.
    public func registerEmptyBuffers(count: Int) throws(Errno) {
        let result = io_uring_register_buffers_sparse(pointer, UInt32(count))
        guard result == 0 else { throw Errno(rawValue: -result) }
    }

    /// Registers memory, which stays valid until the ring is closed. A place in it keeps its address.
    /// - Throws: the errno of `io_uring_register`.
    public func registerBuffers(_ buffers: [UnsafeMutableRawBufferPointer]) throws(Errno) {
        let vectors = buffers.map { iovec(iov_base: $0.baseAddress, iov_len: $0.count) }
        let result = io_uring_register_buffers(pointer, vectors, UInt32(vectors.count))
        guard result == 0 else { throw Errno(rawValue: -result) }
    }

    /// Registers files, so that operations can name them by index without the kernel taking a reference each time.
    /// - Throws: the errno of `io_uring_register`.
    public func registerFiles(_ descriptors: [Int32]) throws(Errno) {
        let result = descriptors.withUnsafeBufferPointer {
            io_uring_register_files(pointer, $0.baseAddress, UInt32($0.count))
        }
        guard result == 0 else { throw Errno(rawValue: -result) }
    }
}

/// A time for the kernel to wait, in memory that it reads when it takes the submission.
public final class RingInterval: @unchecked Sendable {
    // SAFETY: written once, here, and freed with the last reference.
    let pointer: UnsafeMutablePointer<__kernel_timespec>

    public init(nanoseconds: UInt64) {
        pointer = .allocate(capacity: 1)
        pointer.initialize(
            to: __kernel_timespec(
                tv_sec: Int64(nanoseconds / 1_000_000_000), tv_nsec: Int64(nanoseconds % 1_000_000_000)))
    }

    deinit { pointer.deallocate() }
}
