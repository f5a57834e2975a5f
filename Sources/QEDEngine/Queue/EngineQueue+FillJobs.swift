import BlockStorage
import Glibc
import QEDFormat

/// Copy-on-write at rate: the fills that one turn of the loop has planned are performed in jobs, without tasks.
///
/// What a job cannot do (a table of the backing file that is not in memory, clusters larger than its buffer, an error)
/// is left to the requests' tasks.
extension EngineQueue {
    /// Starts as many jobs as there are buffers; the rest goes when one of them ends.
    func startFillJobs() {
        while !plannedFills.isEmpty, let job = freeJobs.popLast() {
            var taken = 0
            jobExtents.removeAll()
            for planned in plannedFills {
                guard jobs[job].takes(planned.fill, clusterShift: topLookup.geometry.clusterShift) else { break }
                taken += 1
                if findBeneath(planned.fill, jobOffset: jobs[job].byteCount) {
                    jobs[job].append(planned, clusterShift: topLookup.geometry.clusterShift)
                } else {
                    // Its task waits for what is missing, and performs it.
                    slots[planned.slot].fill = planned.fill
                    wakeTask(planned.slot)
                    break
                }
            }
            plannedFills.removeFirst(taken)
            if jobs[job].members.isEmpty {
                freeJobs.append(job)
                continue
            }
            readBeneath(job)
        }
    }

    /// Whether a fill can be done by a job: not larger than its buffer.
    func fitsJob(_ fill: Fill) -> Bool {
        fill.count << topLookup.geometry.clusterShift <= UInt64(FillJob.bufferBytes)
    }

    /// Adds to `jobExtents` where the old content of a fill's clusters is; the clusters will lie at `jobOffset` in the
    /// job's buffer.
    ///
    /// A small request's own part is read too, so that the clusters of neighbours become one read.
    /// - Returns: false when it is not all known; nothing was added then.
    private func findBeneath(_ fill: Fill, jobOffset: Int) -> Bool {
        let shift = topLookup.geometry.clusterShift
        let start = fill.firstCluster << shift
        let end = start + fill.count << shift
        let dataIsSmall = (fill.end - fill.start) * 4 <= end - start
        var ranges = [start..<end]
        if !dataIsSmall { ranges = [start..<fill.start, fill.end..<end] }
        if isSabotaged(.fillWithoutHead) { ranges = [fill.end..<end] }
        if isSabotaged(.fillWithoutTail) { ranges = [start..<fill.start] }
        let before = jobExtents.mark
        for range in ranges where !range.isEmpty {
            // A zero cluster at the end hides what lies beneath.
            let hiddenFrom = fill.tailIsZeros ? max(end - (1 << shift), range.lowerBound) : range.upperBound
            extents.removeAll()
            guard
                resolve(range.lowerBound, to: min(range.upperBound, hiddenFrom), fromLayer: 1, judging: false, into: &extents)
                    == .complete,
                hiddenFrom >= range.upperBound
                    || extents.append(
                        layer: Extent.zeros, fileOffset: 0, deviceOffset: hiddenFrom, byteCount: range.upperBound - hiddenFrom),
                append(extents, at: UInt64(jobOffset), start)
            else {
                jobExtents.rewind(to: before)
                return false
            }
        }
        return true
    }

    /// Adds extents of the device, which begins at `start` for them, to those of a job.
    private func append(_ list: ExtentList, at jobOffset: UInt64, _ start: UInt64) -> Bool {
        for index in 0..<list.count {
            let extent = list[index]
            guard
                jobExtents.append(
                    layer: extent.layer, fileOffset: extent.fileOffset,
                    deviceOffset: extent.deviceOffset - start + jobOffset, byteCount: UInt64(extent.byteCount))
            else { return false }
        }
        return true
    }

    private func readBeneath(_ job: Int) {
        let buffer =
            jobs[job].buffer
            ?? .allocate(byteCount: FillJob.bufferBytes, alignment: FillJob.bufferAlignmentBytes)
        jobs[job].buffer = buffer
        let slot = slotOfJob(job)
        slots[slot].isSlow = true
        slots[slot].firstError = 0
        submit(jobExtents, slot: slot, isWrite: false, buffer: buffer, bufferStart: 0)
        if slots[slot].outstanding == 0 { writeJob(job) }
    }

    /// The operations of a job's slot have completed.
    func jobProgressed(_ slot: Int) {
        let job = slot - slotOfJob(0)
        if slots[slot].firstError != 0 {
            handOver(job)
        } else if jobs[job].isWriting {
            endJob(job)
        } else {
            writeJob(job)
        }
        if !plannedFills.isEmpty { startFillJobs() }
    }

    private func writeJob(_ job: Int) {
        guard let buffer = jobs[job].buffer else { preconditionFailure("a job without a buffer") }
        let shift = topLookup.geometry.clusterShift
        for member in jobs[job].members {
            guard let data = slots[member.slot].request.buffer else { preconditionFailure("a write without data") }
            let fill = member.fill
            let offset = fill.fileOffset - jobs[job].fileOffset + (fill.start - fill.firstCluster << shift)
            memcpy(buffer + Int(offset), data, Int(fill.end - fill.start))
        }
        jobs[job].isWriting = true
        let slot = slotOfJob(job)
        let byteCount = UInt32(jobs[job].byteCount)
        statistics.dataWrites &+= 1
        statistics.fills &+= 1
        slots[slot].outstanding = 1
        top.submit(
            .write(buffer, byteCount: byteCount, fileOffset: jobs[job].fileOffset),
            token: dataToken(slot, byteCount: byteCount))
    }

    /// Publishes the members and answers their requests.
    private func endJob(_ job: Int) {
        markUnsynced()
        for member in jobs[job].members { endFill(member) }
        jobs[job].reset()
        freeJobs.append(job)
    }

    /// A job could not read or write something. Each of its fills is performed by its request's task, on the clusters that it
    /// has, so that only those fail that meet the error, and the clusters of the others are not leaked.
    private func handOver(_ job: Int) {
        markUnsynced()
        for member in jobs[job].members { handOver(member, isBegun: jobs[job].isWriting) }
        jobs[job].reset()
        freeJobs.append(job)
    }

    /// The same for one fill. What a write that failed has left in its clusters is what is written there once more, or zeros.
    func handOver(_ planned: PlannedFill, isBegun: Bool) {
        var fill = planned.fill
        fill.isBegun = isBegun
        slots[planned.slot].fill = fill
        wakeTask(planned.slot)
    }

    /// A fill's data is in its clusters: publishes them, and answers the request.
    func endFill(_ planned: PlannedFill) {
        statistics.filledClusters &+= planned.fill.count
        for waiter in image.publish(planned.fill) { waiter.resume(returning: 0) }
        let slot = planned.slot
        if !slots[slot].request.forcesUnitAccess || isSabotaged(.ignoreFUA) {
            finish(slot, 0)
        } else {
            slots[slot].needsOnlyCommit = !isSabotaged(.writeForcedUnitsTwice)
            wakeTask(slot)
        }
    }

    func slotOfJob(_ job: Int) -> Int { housekeepingSlot + 1 + job }
}
