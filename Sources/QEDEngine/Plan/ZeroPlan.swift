import IOURing
import Platform
import QEDFormat
import Synchronization

/// What zeroing or discarding means for the beginning of a range: allocated clusters are punched in place and keep their
/// entries, so the space goes back to the host without any metadata; where backing data must be hidden, the entry becomes a
/// zero cluster.
enum ZeroPlan {
    /// Nothing to do up to here.
    case skip(end: UInt64)
    /// Allocated, contiguous in the file.
    case punch(fileOffset: UInt64, end: UInt64)
    /// Part of an unallocated cluster that hides nothing yet: zeros must be written into it.
    case writeZeros(end: UInt64)
    case blocked(WritePlan.Obstacle)
}

extension Image {
    private static let clustersUnderLock = 1024

    /// What zeroing or discarding means for the beginning of a range, as far as it is of one kind.
    ///
    /// The lock is held for so many clusters at most as `clustersUnderLock` says: whoever else wants to allocate waits no longer,
    /// however much is discarded at once.
    /// - Parameter counters: of the queue; get the tables that are made for it.
    func planZeroes(
        _ start: UInt64, to end: UInt64, isDiscard: Bool, counters: UnsafeMutablePointer<EngineStatistics>
    ) -> ZeroPlan {
        precondition(start < end && end <= sizeBytes, "a range outside the device")
        var clustersLeft = Image.clustersUnderLock
        return state.withLock { state -> ZeroPlan in
            defer { noteWants(of: state) }
            var position = start
            var punchOffset: UInt64?
            while position < end {
                guard clustersLeft > 0 else { break }
                clustersLeft -= 1
                let cluster = position >> geometry.clusterShift
                let clusterEnd = (position | geometry.clusterMask) &+ 1
                let pieceEnd = min(clusterEnd, end)
                let coversCluster = position & geometry.clusterMask == 0 && pieceEnd == min(clusterEnd, sizeBytes)
                let hides = hasDataBeneath(cluster)

                // Nothing is allocated in the whole table or page, and nothing has to be hidden: it is zeros already.
                if isDiscard || !hides, let emptyEnd = endOfUnallocated(from: position) {
                    if punchOffset != nil { break }
                    position = min(emptyEnd, end)
                    continue
                }
                let entry = entryForChange(at: position, changes: hides && !isDiscard, counters, in: &state)
                guard case .found(let value, let pageSlot) = entry else {
                    if punchOffset != nil { break }
                    if position > start { return .skip(end: position) }
                    switch entry {
                    case .missing: return .blocked(.missing(deviceOffset: position))
                    case .invalid: return .blocked(.invalid(deviceOffset: position))
                    case .needsSpace: return .blocked(.needsSpace(clusters: Int(geometry.tableSizeClusters)))
                    default: return .blocked(.commitFirst)
                    }
                }
                if value > L2Entry.zeroValue {
                    let fileOffset = value + (position & geometry.clusterMask)
                    if let first = punchOffset {
                        if first + (position - start) != fileOffset { break }
                    } else {
                        if position > start { return .skip(end: position) }
                        punchOffset = fileOffset
                    }
                } else {
                    if punchOffset != nil { break }
                    if state.fills.contains(cluster: cluster) {
                        return position > start ? .skip(end: position) : .blocked(.busy(cluster: cluster))
                    }
                    if value == L2Entry.unallocatedValue && hides && !isDiscard {
                        guard coversCluster else {
                            return position > start ? .skip(end: position) : .writeZeros(end: pieceEnd)
                        }
                        if isSabotaged(.skipZeroOverBacking) { return .skip(end: pieceEnd) }
                        state.setEntry(
                            ofCluster: cluster, pageSlot, to: L2Entry.zeroValue, in: top, sealedBySync: nil)
                    }
                }
                position = pieceEnd
            }
            if let punchOffset { return .punch(fileOffset: punchOffset, end: position) }
            return .skip(end: position)
        }
    }

    /// Where the table or page without any allocated cluster ends that maps `deviceOffset`; nil when it may have one.
    private func endOfUnallocated(from deviceOffset: UInt64) -> UInt64? {
        let table = top.tableWord(geometry.l1Index(ofDeviceOffset: deviceOffset))
        if table == .unallocated { return (deviceOffset | (geometry.bytesPerL2Table - 1)) &+ 1 }
        guard let words = table.pageWords else { return nil }
        let page = geometry.l2PageNumber(ofDeviceOffset: deviceOffset) & (geometry.pagesPerTable - 1)
        guard PageWord(rawValue: words[page].load(ordering: .acquiring)) == .allUnallocated else { return nil }
        return (deviceOffset | (geometry.bytesPerL2Page - 1)) &+ 1
    }
}
