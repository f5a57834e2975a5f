import QEDFormat

/// What can be done for the beginning of a range that is to be written.
enum WritePlan {
    /// Everything up to here has its place: the extents are in the list.
    case direct(end: UInt64)
    /// Old content must be copied: the clusters are reserved, and whoever gets the plan performs it.
    case copy(CopyPlan)
    case blocked(Obstacle)

    /// What has to happen before a table entry can be looked at, or changed; the caller waits for it and plans again.
    enum Obstacle {
        /// The raw file at the bottom must be asked for its holes from the cluster of this device offset on.
        case unknownBeneath(deviceOffset: UInt64)
        /// The L2 page for this device offset must be loaded.
        case missing(deviceOffset: UInt64)
        /// The entry for this device offset cannot be right: nothing will mend it.
        case invalid(deviceOffset: UInt64)
        /// The file must be extended by this many clusters.
        case needsSpace(clusters: Int)
        /// Another request fills this cluster.
        case busy(cluster: UInt64)
        /// The cache is full of dirty pages, or the log of records.
        case commitFirst
    }
}

extension ChainMap {
    /// Plans as much of the range as is of one kind, from its start.
    /// - Parameters:
    ///   - isKept: what is written is what was read beneath, so a copy is of clusters alone that the image has nothing of: zeros
    ///     hide what lies beneath them.
    ///   - list: gets the places of what can be written directly; it is empty.
    ///   - beneath: gets what lies beneath, where that had to be looked at.
    @inline(__always)
    func planWrite(
        _ start: UInt64, to end: UInt64, isKept: Bool = false, into list: inout ExtentList, beneath: inout ExtentList
    ) -> WritePlan {
        let lookup = files.topLookup
        let clusterMask = lookup.geometry.clusterMask
        var position = start
        while position < end {
            let entry = lookup.entry(at: position)
            // 0 and 1 need a cluster, 2 and 3 a closer look.
            guard entry > PageLookup.invalid else {
                // A copy is planned when nothing is in front of it.
                if list.count > 0 && files.image.hasBackingFile { return .direct(end: position) }
                let clusterStart = position & ~clusterMask
                if mustLearnHoles(at: clusterStart), position > clusterStart || end <= clusterStart | clusterMask || !mayBeAway {
                    return list.count > 0 ? .direct(end: position) : .blocked(.unknownBeneath(deviceOffset: clusterStart))
                }
                let zerosBeneath = self.beneath(position, to: end, into: &beneath)
                let plan = files.image.planAllocation(
                    position, to: end, isKept: isKept, zerosBeneath: zerosBeneath, into: &list, counters: files.counters)
                if case .direct = plan { return plan }
                return list.count > 0 ? .direct(end: position) : plan
            }
            let pieceEnd = min((position | clusterMask) &+ 1, end)
            guard
                list.append(
                    layer: 0, fileOffset: entry &+ (position & clusterMask), deviceOffset: position,
                    byteCount: pieceEnd &- position)
            else { return .direct(end: position) }
            position = pieceEnd
        }
        return .direct(end: end)
    }
}
