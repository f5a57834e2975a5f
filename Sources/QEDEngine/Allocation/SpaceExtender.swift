import BlockStorage
import Glibc
import IOURing
import Platform
import QEDFormat
import Synchronization
import SystemPackage

/// Making the file longer, ahead of its need, and shorter again.
final class SpaceExtender<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone; what the queues share is behind the image's lock, and the header's page
    // belongs to whoever extends or trims the image.
    let files: QueueFiles<S>
    let committer: Committer<S>
    var image: Image { files.image }
    private var top: S { files.top }

    init(files: QueueFiles<S>, committer: Committer<S>) {
        self.files = files
        self.committer = committer
    }

    /// Returns when there was room for `clusters` more clusters at some moment; the caller tries again.
    /// - Throws: the errno of the extension, `noSpace` above all, to everybody who waits for it.
    func extend(atLeast clusters: Int) async throws(RequestError) {
        switch image.withCursor({ $0.cursor.beginExtension(atLeast: clusters) }) {
        case .enough:
            return
        case .wait:
            let result = await cursorIdle()
            guard result >= 0 else { throw .storage(Errno(rawValue: -result)) }
        case .extend(let from, let end, let leastEnd):
            precondition(!image.isReadOnly && from < leastEnd && leastEnd <= end, "an extension by nothing")
            do throws(RequestError) {
                let reached = try await extendFile(from: from, to: end, atLeast: leastEnd)
                endExtension(at: reached, result: 0)
            } catch {
                endExtension(at: nil, result: -error.errno.rawValue)
                throw error
            }
        }
    }

    /// Returns when no extension or trim is under way, with the result of the one that was: 0 or a negative errno.
    func cursorIdle() async -> Int32 {
        precondition(!image.isReadOnly, "somebody waits for space in an image that is only read")
        return await withUnsafeContinuation { (continuation: CompletionContinuation) in
            let waits = image.state.withLock { state in
                guard state.cursor.isBusy else { return false }
                state.spaceWaiters.append(continuation)
                return true
            }
            if !waits { continuation.resume(returning: 0) }
        }
    }

    private func endExtension(at end: UInt64?, result: Int32) {
        precondition((end == nil) == (result < 0), "an extension that failed and did not")
        let waiters = image.withCursor { state in
            state.cursor.extensionEnded(at: end)
            if end != nil { image.noteWants(of: state) }
            return state.takeSpaceWaiters()
        }
        for waiter in waiters { waiter.resume(returning: result) }
    }

    /// Extends the file and makes its new length durable, together with NEED_CHECK when that is not set yet.
    ///
    /// The bit tells QEMU, and ourselves after a crash, to look for what was allocated and not linked.
    /// - Returns: the length reached: less than `end`, but `leastEnd` or more, when space is short.
    private func extendFile(
        from start: UInt64, to end: UInt64, atLeast leastEnd: UInt64
    ) async throws(RequestError) -> UInt64 {
        let setsNeedCheck = image.state.withLock { $0.cursor.needCheck == .beingSet }
        precondition(image.state.withLock { $0.cursor.isBusy }, "a file is extended beside another extension")
        if setsNeedCheck { try await writeNeedCheck(true) }
        files.counters.pointee.extensions &+= 1
        var attempt = FileExtension(
            from: start, to: end, atLeast: leastEnd, zeroes: image.state.withLock { $0.zeroing.isWantedNext() },
            clusterSizeBytes: image.geometry.clusterSizeBytes)
        while let errno = await take(attempt) {
            let wasZeroing = attempt.step == .zeroedSpace
            if case .giveUp(let errno) = attempt.refused(errno) { throw .storage(errno) }
            if wasZeroing && attempt.step == .space { image.state.withLock { $0.zeroing.refused() } }
        }
        if !isSabotaged(.skipSyncAfterExtension) { try await committer.sync() }
        precondition(attempt.end >= leastEnd && attempt.end <= end, "an extension by less than is needed")
        return attempt.end
    }

    /// Performs the step of an extension.
    /// - Returns: the errno with which it was refused; nil: it is done.
    private func take(_ attempt: FileExtension) async -> Errno? {
        precondition(attempt.end > attempt.start, "an extension by nothing")
        let began = top.nanoseconds
        do throws(StorageError) {
            switch attempt.step {
            case .zeroedSpace, .space:
                let zeroes = attempt.step == .zeroedSpace
                try await top.allocate(fileOffset: attempt.start, byteCount: attempt.byteCount, zeroed: zeroes)
                guard zeroes else { return nil }
                let took = top.nanoseconds - began
                image.state.withLock { $0.zeroing.ended(byteCount: attempt.byteCount, nanoseconds: took) }
            case .lengthAlone:
                try await top.setLength(attempt.end)
            }
            return nil
        } catch {
            return error.errno
        }
    }

    /// Gives back what was extended ahead and marks the image as clean, when nothing is being allocated. Who wants to change
    /// an entry meanwhile waits for the end, and for the next extension, which marks the image again.
    func trim() async throws(RequestError) {
        let length = image.withCursor { state -> UInt64? in
            // Pages that a commit is writing are dirty no more, but they are not durable either.
            guard state.fills.isEmpty, state.commit.isIdle, !state.hasDirtyMetadata else { return nil }
            return state.cursor.beginTrim()
        }
        guard let length else { return }
        precondition(length % image.geometry.clusterSizeBytes == 0, "an image that ends within a cluster")
        let failure = await shorten(to: isSabotaged(.trimTooShort) ? length - image.geometry.clusterSizeBytes : length)
        let waiters = image.withCursor { state in
            state.cursor.trimEnded(succeeded: failure == nil)
            return state.takeSpaceWaiters()
        }
        for waiter in waiters { waiter.resume(returning: 0) }
        if let failure { throw failure }
    }

    private func shorten(to length: UInt64) async -> RequestError? {
        precondition(image.state.withLock { $0.cursor.needCheck == .beingCleared }, "a file is cut beside allocations")
        do throws(RequestError) {
            try await committer.sync()
            do throws(StorageError) { try await top.setLength(length) } catch { throw .storage(error.errno) }
            if !isSabotaged(.keepNeedCheck) { try await writeNeedCheck(false) }
            try await committer.sync()
            return nil
        } catch {
            return error
        }
    }

    /// Writes the header with or without NEED_CHECK, and the sign that goes with it that there is a mapping log; the caller
    /// syncs. Everything else of the header's page stays as it is. One at a time: the caller extends or trims the image.
    private func writeNeedCheck(_ isSet: Bool) async throws(RequestError) {
        precondition(image.state.withLock { $0.cursor.isBusy }, "a header is written beside an extension or a trim")
        files.counters.pointee.headerWrites &+= 1
        let features = image.headerPage.loadUnaligned(
            fromByteOffset: QEDHeaderField.features.fileOffset, as: UInt64.self)
        let needCheck = QEDFeatures.needCheck.rawValue.littleEndian
        image.headerPage.storeBytes(
            of: isSet ? features | needCheck : features & ~needCheck,
            toByteOffset: QEDHeaderField.features.fileOffset, as: UInt64.self)
        let autoclear = image.headerPage.loadUnaligned(
            fromByteOffset: QEDHeaderField.autoclearFeatures.fileOffset, as: UInt64.self)
        let log = QEDAutoclearFeatures.mappingLog.rawValue.littleEndian
        image.headerPage.storeBytes(
            of: isSet && image.hasLog ? autoclear | log : autoclear & ~log,
            toByteOffset: QEDHeaderField.autoclearFeatures.fileOffset, as: UInt64.self)
        if image.hasRoomForNote { SessionNote.store(isSet ? image.note : nil, in: image.headerPage) }
        try await writeHeaderSector()
    }

    /// Writes the first sector from memory, or the block that it is in. One at a time.
    func writeHeaderSector() async throws(RequestError) {
        let bytes = max(top.alignment.offsetBytes, Int(QEDLimits.sectorSizeBytes))
        try await files.write(image.headerPage, byteCount: min(bytes, Image.headerPageBytes), fileOffset: 0)
    }
}
