import BlockStorage
import IOURing
import QEDFormat
import SystemPackage

/// Whose storage operations are counted together: those of a request, of a copy job, or of the queue's commit.
struct TransferGroup: Equatable {
    let number: Int
}

/// The storage operations of a queue that are under way with inline tokens, counted by group.
///
/// A token names its group and how many bytes its operation should move, so a completion needs nothing else.
struct Transfers<S: Storage>: @unchecked Sendable {
    // SAFETY: memory of one queue, touched by its thread alone; the queue frees it when nothing is under way.

    struct Count {
        /// Operations that have not completed.
        var outstanding: Int32 = 0
        /// Of the first operation that failed or fell short: a negative errno.
        var firstError: Int32 = 0
        /// The task that waits for `outstanding` to become 0.
        var waiter: CompletionContinuation?
    }

    private let files: QueueFiles<S>
    private let counts: UnsafeMutablePointer<Count>
    private let groupCount: Int
    /// Those of what no user of the disk has asked for.
    private let ownGroups: Range<Int>
    /// Is told what is read from the bottom of the chain for its users; nil: nobody wants to know.
    private let recorder: ReadRecorder?
    private let bottomLayer: Int

    /// - Parameter below: of the queue from which this one takes over: it goes on with some of the groups, and the counts are
    ///   the same for both. Whoever is left frees them.
    init(files: QueueFiles<S>, groupCount: Int, own ownGroups: Range<Int>, sharing below: Transfers<S>?) {
        self.files = files
        self.groupCount = groupCount
        self.ownGroups = ownGroups
        recorder = files.bottomIsRaw ? files.image.recorder : nil
        bottomLayer = files.layerCount - 1
        if let below {
            precondition(below.groupCount == groupCount, "counts of another queue")
            counts = below.counts
            return
        }
        counts = .allocate(capacity: groupCount)
        counts.initialize(repeating: Count(), count: groupCount)
    }

    func deallocate() {
        counts.deinitialize(count: groupCount)
        counts.deallocate()
    }

    // MARK: - Starting

    @inline(__always)
    private func token(_ group: TransferGroup, byteCount: UInt32) -> CompletionToken {
        CompletionToken(kind: EngineQueue<S>.tokenKind, slot: group.number, detail: byteCount)
    }

    /// Starts the only operation of a group that has none: on the image's own file.
    @inline(__always)
    func startOnly(
        _ group: TransferGroup, isWrite: Bool, _ buffer: UnsafeMutableRawPointer, byteCount: UInt32, fileOffset: UInt64
    ) {
        counts[group.number].outstanding = 1
        let token = token(group, byteCount: byteCount)
        if isWrite {
            files.counters.pointee.dataWrites &+= 1
            files.top.submit(.write(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token)
        } else {
            files.counters.pointee.dataReads &+= 1
            files.top.submit(.read(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token)
        }
    }

    /// Starts a read of a page of a layer's L2 table, one of several of its group.
    func startTableRead(_ group: TransferGroup, _ buffer: UnsafeMutableRawPointer, layer: Int, fileOffset: UInt64) {
        let byteCount = UInt32(QEDGeometry.l2PageSizeBytes)
        precondition(fileOffset > 0 && fileOffset % UInt64(byteCount) == 0, "a page of no table")
        counts[group.number].outstanding += 1
        files.counters.pointee.l2PageReads &+= 1
        let token = token(group, byteCount: byteCount)
        if layer == 0 {
            files.top.submit(.read(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token)
        } else {
            files.layers[layer].storage.submitRead(into: buffer, byteCount: byteCount, fileOffset: fileOffset, token: token)
        }
    }

    /// Starts a write to the image's tables, one of several of its group.
    func startTableWrite(_ group: TransferGroup, _ buffer: UnsafeRawPointer, byteCount: UInt32, fileOffset: UInt64) {
        precondition(byteCount > 0 && fileOffset % UInt64(byteCount) == 0, "a part of a table's page")
        counts[group.number].outstanding += 1
        files.top.submit(
            .write(buffer, byteCount: byteCount, fileOffset: fileOffset), token: token(group, byteCount: byteCount))
    }

    /// Starts the data transfers of extents; zeros are laid into the buffer at once.
    /// - Parameter bufferStart: the device offset of the buffer's first byte.
    func start(
        _ group: TransferGroup, isWrite: Bool, _ list: ExtentList, buffer: UnsafeMutableRawPointer, bufferStart: UInt64
    ) {
        for index in 0..<list.count {
            let extent = list[index]
            let position = buffer + Int(truncatingIfNeeded: extent.deviceOffset &- bufferStart)
            if extent.layer == Extent.zeros {
                position.initializeMemory(as: UInt8.self, repeating: 0, count: Int(extent.byteCount))
                continue
            }
            counts[group.number].outstanding &+= 1
            let token = token(group, byteCount: extent.byteCount)
            if isWrite {
                precondition(extent.layer == 0, "a backing file is never written to")
                files.counters.pointee.dataWrites &+= 1
                files.top.submit(.write(position, byteCount: extent.byteCount, fileOffset: extent.fileOffset), token: token)
                continue
            }
            files.counters.pointee.dataReads &+= 1
            if extent.layer == 0 {
                files.top.submit(.read(position, byteCount: extent.byteCount, fileOffset: extent.fileOffset), token: token)
            } else {
                if recorder != nil { note(group, extent) }
                files.layers[Int(extent.layer)].storage.submitRead(
                    into: position, byteCount: extent.byteCount, fileOffset: extent.fileOffset, token: token)
            }
        }
    }

    /// Starts a transfer between the pages of a request, which are registered with the ring, and a file of the chain.
    @inline(never)
    func startRegistered(
        _ group: TransferGroup, isWrite: Bool, _ buffer: RegisteredBuffer, layer: Int, byteCount: UInt32, fileOffset: UInt64
    ) {
        precondition(!isWrite || layer == 0, "a backing file is never written to")
        precondition(byteCount > 0 && !buffer.isNone, "a transfer of nothing, or nowhere")
        counts[group.number].outstanding &+= 1
        if isWrite { files.counters.pointee.dataWrites &+= 1 } else { files.counters.pointee.dataReads &+= 1 }
        files.counters.pointee.registeredTransfers &+= 1
        let transfer = RegisteredTransfer(isWrite: isWrite, buffer: buffer, byteCount: byteCount, fileOffset: fileOffset)
        let token = token(group, byteCount: byteCount)
        if layer == 0 {
            files.top.submit(transfer, token: token)
        } else {
            files.layers[layer].storage.submit(transfer, token: token)
        }
    }

    /// The same for extents, none of which is of zeros.
    func startRegistered(
        _ group: TransferGroup, isWrite: Bool, _ list: ExtentList, _ buffer: RegisteredBuffer, bufferStart: UInt64
    ) {
        for index in 0..<list.count {
            let extent = list[index]
            if recorder != nil { note(group, extent) }
            startRegistered(
                group, isWrite: isWrite, buffer.advanced(by: extent.deviceOffset &- bufferStart), layer: Int(extent.layer),
                byteCount: extent.byteCount, fileOffset: extent.fileOffset)
        }
    }

    /// At the bottom an offset in the file is one of the disk.
    private func note(_ group: TransferGroup, _ extent: Extent) {
        guard Int(extent.layer) == bottomLayer, bottomLayer > 0, !ownGroups.contains(group.number) else { return }
        recorder?.note(extent.fileOffset..<extent.fileOffset + UInt64(extent.byteCount))
    }

    // MARK: - Ending

    /// An operation has completed.
    /// - Returns: whether it was the last of its group.
    @inline(__always)
    func completed(_ token: CompletionToken, _ result: Int32) -> Bool {
        let count = counts + token.slot
        let isWhole = result == Int32(truncatingIfNeeded: token.detail) || (isSabotaged(.acceptShortTransfer) && result > 0)
        if !isWhole && count.pointee.firstError == 0 {
            count.pointee.firstError = result < 0 ? result : -Errno.ioError.rawValue
        }
        count.pointee.outstanding &-= 1
        return count.pointee.outstanding == 0
    }

    @inline(__always)
    func isIdle(_ group: TransferGroup) -> Bool { counts[group.number].outstanding == 0 }

    @inline(__always)
    func hasFailed(_ group: TransferGroup) -> Bool { counts[group.number].firstError != 0 }

    /// Whether an operation of the group has failed, or fallen short, since this was last asked.
    @inline(__always)
    func takeFailure(_ group: TransferGroup) -> Bool {
        guard counts[group.number].firstError != 0 else { return false }
        counts[group.number].firstError = 0
        return true
    }

    /// Suspends the task until nothing of the group is under way.
    func finished(_ group: TransferGroup) async {
        guard counts[group.number].outstanding > 0 else { return }
        _ = await withUnsafeContinuation { (continuation: CompletionContinuation) in
            precondition(counts[group.number].waiter == nil, "two tasks wait for the same transfers")
            counts[group.number].waiter = continuation
        }
    }

    /// Wakes the task that waits for the group's end, if there is one.
    func wakeWaiter(_ group: TransferGroup) {
        precondition(isIdle(group), "its transfers are under way")
        guard let waiter = counts[group.number].waiter else { return }
        counts[group.number].waiter = nil
        waiter.resume(returning: 0)
    }

    // MARK: - For tasks

    /// Moves the data of all extents at once, and one by one, continuing short transfers, what did not go well.
    func perform(
        _ list: ExtentList, isWrite: Bool, buffer: UnsafeMutableRawPointer, bufferStart: UInt64, _ group: TransferGroup
    ) async throws(RequestError) {
        precondition(isIdle(group), "the request has transfers under way")
        // Of a write that fails some may have been written.
        defer { if isWrite { files.markUnsynced() } }
        start(group, isWrite: isWrite, list, buffer: buffer, bufferStart: bufferStart)
        await finished(group)
        guard takeFailure(group) else { return }
        do {
            for index in 0..<list.count where list[index].layer != Extent.zeros {
                let extent = list[index]
                let position = buffer + Int(extent.deviceOffset - bufferStart)
                if isWrite {
                    precondition(extent.layer == 0, "a backing file is never written to")
                    try await files.top.writeFully(
                        from: position, byteCount: Int(extent.byteCount), fileOffset: extent.fileOffset)
                } else {
                    try await files.read(
                        Int(extent.layer), into: position, byteCount: Int(extent.byteCount), fileOffset: extent.fileOffset)
                }
            }
        } catch {
            throw .storage(error.errno)
        }
    }
}
