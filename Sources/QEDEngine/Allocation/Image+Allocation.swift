import BlockStorage
import IOURing
import Platform
import QEDFormat
import Synchronization

/// Allocation: transitions under the image's lock, called from the write path with what it found without the lock.
extension Image {
    /// Gives the range from `start` its places: existing clusters, fresh ones as far as nothing lies beneath, or a fill.
    ///
    /// - Parameters:
    ///   - isKept: see `ChainMap.planWrite`.
    ///   - zerosBeneath: up to here nothing but zeros lies beneath, as far as whole clusters are concerned.
    ///   - counters: of the queue; get what was allocated. (A fill is counted when it is published.)
    ///
    /// Fresh clusters are published at once: until the data is there they read as zeros, which is what was there before.
    /// So a second write to the same cluster goes ahead in place, and a write that fails leaves nothing wrong behind.
    func planAllocation(
        _ start: UInt64, to end: UInt64, isKept: Bool = false, zerosBeneath: UInt64, into list: inout ExtentList,
        counters: UnsafeMutablePointer<EngineStatistics>
    ) -> WritePlan {
        precondition(start < end && end <= sizeBytes, "a range outside the device")
        let geometry = self.geometry
        return state.withLock { state -> WritePlan in
            var freshClusters: UInt64 = 0
            defer {
                counters.pointee.countAllocation(clusters: freshClusters, bytes: freshClusters &<< geometry.clusterShift)
                noteWants(of: state)
            }
            var position = start
            while position < end {
                let pieceEnd = min((position | geometry.clusterMask) &+ 1, end)
                let cluster = position &>> geometry.clusterShift
                let blocked: WritePlan
                switch entryForChange(at: position, counters, in: &state) {
                case .missing: blocked = .blocked(.missing(deviceOffset: position))
                case .invalid: blocked = .blocked(.invalid(deviceOffset: position))
                case .needsSpace: blocked = .blocked(.needsSpace(clusters: Int(geometry.tableSizeClusters) + 1))
                case .commitFirst: blocked = .blocked(.commitFirst)
                case .found(let value, let pageSlot):
                    if value > L2Entry.zeroValue {
                        guard append(value, position, pieceEnd, to: &list) else { return .direct(end: position) }
                        position = pieceEnd
                        continue
                    }
                    if state.fills.contains(cluster: cluster) {
                        blocked = .blocked(.busy(cluster: cluster))
                    } else if value == L2Entry.unallocatedValue && hasDataBeneath(cluster),
                        zerosBeneath <= position | geometry.clusterMask
                    {
                        if position > start {
                            // First what came before; the fill is planned when its turn comes.
                            return .direct(end: position)
                        } else {
                            blocked = planCopy(position, to: end, isKept: isKept, pageSlot: pageSlot, in: &state)
                        }
                    } else if let fileOffset = state.cursor.reserve(1) {
                        guard append(fileOffset, position, pieceEnd, to: &list) else {
                            preconditionFailure("the extent list is smaller than a request")
                        }
                        state.setEntry(ofCluster: cluster, pageSlot, to: fileOffset, in: top, sealedBySync: nil)
                        freshClusters &+= 1
                        position = pieceEnd
                        continue
                    } else {
                        let remaining = ((end - 1) >> geometry.clusterShift) - cluster + 1
                        blocked = .blocked(.needsSpace(clusters: Int(remaining)))
                    }
                }
                return position > start ? .direct(end: position) : blocked
            }
            return .direct(end: end)
        }
    }

    private func append(_ clusterOffset: UInt64, _ position: UInt64, _ end: UInt64, to list: inout ExtentList) -> Bool {
        list.append(
            layer: 0, fileOffset: clusterOffset &+ (position & geometry.clusterMask), deviceOffset: position,
            byteCount: end &- position)
    }

    /// Whether the backing chain may have something else than zeros for the cluster.
    func hasDataBeneath(_ cluster: UInt64) -> Bool {
        cluster &<< geometry.clusterShift < backingEnd && !isSabotaged(.fillIsFresh)
    }

    enum EntryForChange {
        case found(value: UInt64, pageSlot: Int)
        case missing, invalid, needsSpace, commitFirst
    }

    /// The entry at `deviceOffset` with its page in memory. One that says that nothing is allocated is ready to be changed,
    /// unless `changes` is false; its table is made where there is none.
    func entryForChange(
        at deviceOffset: UInt64, changes: Bool = true, _ counters: UnsafeMutablePointer<EngineStatistics>,
        in state: inout ImageState
    ) -> EntryForChange {
        precondition(!isReadOnly && deviceOffset < sizeBytes, "an entry that is not to be changed")
        let l1Index = geometry.l1Index(ofDeviceOffset: deviceOffset)
        switch top.tableWord(l1Index) {
        case .invalid: return .invalid
        case .unallocated:
            if let obstacle = obstacleToChange(in: state) { return obstacle }
            // A table in fresh space is a table of zeros: it needs no write before its entries do.
            guard let fileOffset = state.cursor.reserve(Int(geometry.tableSizeClusters)) else { return .needsSpace }
            if !isSabotaged(.forgetTableRecord) {
                state.log?.append(.table, index: UInt64(l1Index), value: fileOffset, oldValue: 0)
            }
            state.cache.addTable(l1Index, fileOffset: fileOffset, to: top)
            counters.pointee.countTable(bytes: geometry.tableSizeClusters << geometry.clusterShift)
            if !isSabotaged(.forgetL1Entry) { state.unwrittenL1Indexes.append(l1Index) }
        default: break
        }
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset)
        let word = state.cache.word(ofPage: page, in: top)
        let pageSlot: Int
        if let slot = word.slot {
            pageSlot = slot
        } else if word == .allUnallocated {
            if let obstacle = obstacleToChange(in: state) { return obstacle }
            if state.hasManyDirtyPages { return .commitFirst }
            guard let slot = state.cache.takeSlot(in: top) else { return .commitFirst }
            state.cache.addEmptyPage(slot, page: page, in: top)
            pageSlot = slot
        } else {
            return .missing
        }
        precondition(
            state.cache[pageSlot].phase == .resident && state.cache[pageSlot].page == page,
            "the entry of another page")
        let index = geometry.indexInL2Page(ofDeviceOffset: deviceOffset)
        let value = UInt64(littleEndian: state.cache.values(ofSlot: pageSlot)[index])
        if state.cache[pageSlot].isCareful, case .invalid = entryBounds(in: state).l2Entry(value) {
            return .invalid
        }
        // What is allocated stays where it is: that asks for no space, not even on a full disk.
        if value <= L2Entry.zeroValue && changes {
            if let obstacle = obstacleToChange(in: state) { return obstacle }
            if !state.cache[pageSlot].isDirty && state.hasManyDirtyPages { return .commitFirst }
        }
        return .found(value: value, pageSlot: pageSlot)
    }

    /// What has to happen before an entry, and perhaps its table, can be changed.
    private func obstacleToChange(in state: borrowing ImageState) -> EntryForChange? {
        // NEED_CHECK is set together with an extension.
        let isAllowed =
            state.cursor.needCheck.allowsChanges
            || (isSabotaged(.changeBesideTrim) && state.cursor.needCheck == .beingCleared)
        guard isAllowed else { return .needsSpace }
        if let log = state.log, !log.hasRoom(2) { return .commitFirst }
        return nil
    }

    /// Reserves clusters for as many neighbours as one copy can take, from `position`'s cluster on.
    private func planCopy(
        _ position: UInt64, to end: UInt64, isKept: Bool, pageSlot: Int, in state: inout ImageState
    ) -> WritePlan {
        precondition(position < end && end <= sizeBytes, "a copy for nothing, or outside the device")
        let firstCluster = position >> geometry.clusterShift
        let lastCluster = (end - 1) >> geometry.clusterShift
        let firstIndex = geometry.indexInL2Page(ofDeviceOffset: position)
        let values = state.cache.values(ofSlot: pageSlot)
        let largestValue = isKept && !isSabotaged(.keepOverZeros) ? L2Entry.unallocatedValue : L2Entry.zeroValue
        var count: UInt64 = 0
        while firstCluster + count <= lastCluster, firstIndex + Int(count) < QEDGeometry.entriesPerL2Page,
            UInt64(littleEndian: values[firstIndex + Int(count)]) <= largestValue,
            !state.fills.contains(cluster: firstCluster + count)
        {
            count += 1
        }
        if let log = state.log {
            guard log.hasRoom(1) else { return .blocked(.commitFirst) }
            while !log.hasRoom(Int(count)) { count /= 2 }
        }
        count = min(count, UInt64(state.cursor.availableClusters))
        guard count > 0, let fileOffset = state.cursor.reserve(Int(count)) else {
            return .blocked(.needsSpace(clusters: Int(lastCluster - firstCluster) + 1))
        }
        state.fills.begin(firstCluster: firstCluster, count: count)
        state.log?.reserve(count)
        precondition(state.cache[pageSlot].phase == .resident, "a page is pinned that is not in memory")
        state.cache[pageSlot].pinCount += 1
        state.hasChangedSinceTick = true
        let clustersEnd = (firstCluster + count) << geometry.clusterShift
        return .copy(
            CopyPlan(
                firstCluster: firstCluster, count: count, fileOffset: fileOffset, pageSlot: pageSlot,
                clusterShift: geometry.clusterShift, start: position, end: min(end, clustersEnd),
                tailIsZeros: UInt64(littleEndian: values[firstIndex + Int(count) - 1]) == L2Entry.zeroValue))
    }

    /// The fill's data is in its clusters: publishes them. They are written to the file's table once a sync that starts
    /// after this moment has completed.
    /// - Returns: the tasks that waited for the fill.
    func publish(_ fill: CopyPlan) -> [CompletionContinuation] {
        precondition(fill.count > 0 && fill.fileOffset & geometry.clusterMask == 0, "a fill of nothing, or of parts of clusters")
        return state.withLock { state in
            precondition(
                fill.fileOffset + fill.sizeBytes <= state.cursor.nextFileOffset, "a fill of clusters that nobody handed out")
            let waiters = endFill(fill, in: &state)
            for cluster in 0..<fill.count {
                state.setEntry(
                    ofCluster: fill.firstCluster + cluster, fill.pageSlot,
                    to: fill.fileOffset + cluster << geometry.clusterShift, in: top,
                    sealedBySync: isSabotaged(.sealBySyncInFlight) ? state.syncs.started : state.syncs.nextToStart)
            }
            noteWants(of: state)
            return waiters
        }
    }

    /// The fill failed. Clusters that it has written to are not fresh any more, so nobody gets them: they are leaked until the
    /// next check. Those of a fill that could not even read what lies beneath are the next one's.
    /// - Returns: the tasks that waited for the fill.
    func abandon(_ fill: CopyPlan) -> [CompletionContinuation] {
        state.withLock { state in
            precondition(
                fill.fileOffset + fill.sizeBytes <= state.cursor.nextFileOffset, "a fill of clusters that nobody handed out")
            if !fill.isBegun { state.cursor.giveBack(at: fill.fileOffset, clusters: Int(fill.count)) }
            return endFill(fill, in: &state)
        }
    }

    private func endFill(_ fill: CopyPlan, in state: inout ImageState) -> [CompletionContinuation] {
        precondition(state.cache[fill.pageSlot].pinCount > 0, "the fill's page was not pinned")
        precondition(
            state.cache[fill.pageSlot].phase == .resident && state.fills.contains(cluster: fill.firstCluster),
            "a fill that ended before, or whose page is gone")
        state.cache[fill.pageSlot].pinCount -= 1
        state.log?.release(fill.count)
        return state.fills.end(firstCluster: fill.firstCluster) + state.takeSlotWaiters()
    }
}
