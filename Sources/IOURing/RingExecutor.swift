import CSupport
import Glibc
import Platform
import Synchronization
import SystemPackage

/// Runs tasks on the thread of one ring.
///
/// A task created with this executor as its preference runs nowhere else: whatever it awaits, it continues here. A task
/// resumed by another thread arrives through the inbox, and the ring's thread is woken through an eventfd that its ring reads.
public final class RingExecutor: TaskExecutor, @unchecked Sendable {
    // SAFETY: the local queue is touched by the ring's thread alone; the inbox by any thread under its lock.
    private var local: [UnownedJob?]
    private var head = 0
    private var tail = 0
    private let inbox: Lock<[UnownedJob]>
    /// The inbox holds jobs: so that an empty one costs no lock.
    private let inboxHasJobs = Atomic<Bool>(false)
    private let eventDescriptor: Int32
    private let eventBuffer: UnsafeMutablePointer<UInt64>

    /// - Throws: the errno of `eventfd`.
    public init() throws(Errno) {
        let descriptor = cs_eventfd()
        guard descriptor >= 0 else { throw Errno(rawValue: -descriptor) }
        eventDescriptor = descriptor
        eventBuffer = .allocate(capacity: 1)
        eventBuffer.initialize(to: 0)
        local = Array(repeating: nil, count: 256)
        var jobs: [UnownedJob] = []
        jobs.reserveCapacity(256)
        inbox = Lock(jobs)
    }

    deinit {
        Glibc.close(eventDescriptor)
        eventBuffer.deallocate()
    }

    /// Declares the calling thread to be the ring's. Call it once, first thing on that thread.
    public func bindToCurrentThread() {
        cs_current_executor_set(UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()))
    }

    /// The calling thread is the ring's.
    public var isOnItsThread: Bool { cs_current_executor_get() == UnsafeRawPointer(Unmanaged.passUnretained(self).toOpaque()) }

    /// Ends the thread's bond; later jobs go to the inbox and are never run.
    public func unbindFromCurrentThread() {
        // A thread may have made another loop since.
        if isOnItsThread { cs_current_executor_set(nil) }
    }

    public func enqueue(_ job: consuming ExecutorJob) {
        let job = UnownedJob(job)
        if isOnItsThread {
            push(job)
        } else {
            inbox.withLock { $0.append(job) }
            inboxHasJobs.store(true, ordering: .releasing)
            wake()
        }
    }

    /// Makes the ring's thread return from its wait. Any thread.
    public func wake() { cs_eventfd_signal(eventDescriptor) }

    /// Prepares the read of the eventfd; again after each of its completions.
    public func armWakeUp(on ring: Ring) {
        cs_prep_read(ring.nextSubmission(), eventDescriptor, eventBuffer, 8, 0, CompletionToken.wakeUp.rawValue)
    }

    /// Runs jobs until none is ready. Jobs that make others ready are followed to the end.
    public func runReady() {
        takeInbox()
        while head != tail {
            let index = head & (local.count - 1)
            let job = local[index]
            local[index] = nil
            head &+= 1
            job?.runSynchronously(on: asUnownedTaskExecutor())
            if head == tail { takeInbox() }
        }
    }

    @inline(__always)
    private func takeInbox() {
        if inboxHasJobs.load(ordering: .acquiring) { emptyInbox() }
    }

    private func emptyInbox() {
        // Taken away first: a job that comes in between is found now, and looked for once more.
        inboxHasJobs.store(false, ordering: .sequentiallyConsistent)
        inbox.withLock { jobs in
            for job in jobs { push(job) }
            jobs.removeAll(keepingCapacity: true)
        }
    }

    private func push(_ job: UnownedJob) {
        if tail &- head == local.count { grow() }
        local[tail & (local.count - 1)] = job
        tail &+= 1
    }

    private func grow() {
        var larger: [UnownedJob?] = Array(repeating: nil, count: local.count * 2)
        let count = tail &- head
        for offset in 0..<count { larger[offset] = local[(head &+ offset) & (local.count - 1)] }
        local = larger
        head = 0
        tail = count
    }
}
