import BlockStorage
import IOURing
import Platform
import QEDFormat
import SystemPackage

/// Waiting for the image's L2 pages, and for room in the cache and the log.
final class PageLoader<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone; what is shared is behind the image's lock.
    private let files: QueueFiles<S>
    private let committer: Committer<S>
    private var image: Image { files.image }

    init(files: QueueFiles<S>, committer: Committer<S>) {
        self.files = files
        self.committer = committer
    }

    /// Returns when the page for `deviceOffset` was in memory; it may be gone again when the caller looks.
    ///
    /// One read of 4 KiB, shared by all that wait for the page.
    func load(_ deviceOffset: UInt64) async throws(RequestError) {
        switch image.beginPageLoad(deviceOffset: deviceOffset) {
        case .ready:
            return
        case .commitFirst:
            try await makeRoom()
        case .wait(let slot):
            let result = await withUnsafeContinuation { (continuation: CompletionContinuation) in
                if !image.waitForPage(slot, deviceOffset: deviceOffset, continuation) {
                    continuation.resume(returning: 0)
                }
            }
            guard result >= 0 else { throw .storage(Errno(rawValue: -result)) }
        case .read(let slot, let fileOffset):
            precondition(fileOffset % UInt64(QEDGeometry.l2PageSizeBytes) == 0 && fileOffset > 0, "a page of no table")
            let address = image.pageAddress(slot)
            var failure: Errno?
            files.counters.pointee.l2PageReads &+= 1
            files.counters.pointee.pageLoads &+= 1
            do {
                try await files.read(
                    0, into: address, byteCount: QEDGeometry.l2PageSizeBytes, fileOffset: fileOffset)
            } catch {
                failure = error.errno
            }
            let waiters = image.pageLoaded(slot, succeeded: failure == nil)
            for waiter in waiters { waiter.resume(returning: failure.map { -$0.rawValue } ?? 0) }
            if let failure { throw .storage(failure) }
        }
    }

    /// Returns when it makes sense to ask for a page of the cache, or a record of the log, again: after a commit where that
    /// can free one, else when a page has been loaded, or a fill or another's commit has ended. A commit would free nothing
    /// then, and never wait.
    func makeRoom() async throws(RequestError) {
        var mustCommit = false
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let waits = image.state.withLock { state in
                mustCommit = state.wantsCommitForRoom
                // Fills under way may have reserved all of the log; their end wakes us as well.
                if mustCommit || (state.cache.hasRoom && state.log?.hasRoom(2) ?? true) { return false }
                state.slotWaiters.append(continuation)
                return true
            }
            if !waits { continuation.resume(returning: 0) }
        }
        if mustCommit { try await committer.commit() }
    }
}

extension Image {
    /// Where a slot's page lies: its I/O buffer while it is being loaded.
    func pageAddress(_ slot: Int) -> UnsafeMutableRawPointer {
        top.lookup.memory + slot * QEDGeometry.l2PageSizeBytes
    }
}
