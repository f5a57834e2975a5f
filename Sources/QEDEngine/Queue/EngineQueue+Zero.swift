import BlockStorage
import Glibc
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// Discard and write zeroes: allocated clusters are punched in place and keep their entries, so the space goes back to the
/// host without any metadata; where backing data must be hidden, the entry becomes a zero cluster.
extension EngineQueue {
    enum ZeroPlan {
        /// Nothing to do up to here.
        case skip(end: UInt64)
        /// Allocated, contiguous in the file.
        case punch(fileOffset: UInt64, end: UInt64)
        /// Part of an unallocated cluster that hides nothing yet: zeros must be written into it.
        case writeZeros(end: UInt64)
        /// What the write path says in its place.
        case blocked(WritePlan)
    }

    /// - Parameter isDiscard: content need not become zeros; only space is given back.
    func zeroSlowly(
        _ slot: Int, _ range: Range<UInt64>, isDiscard: Bool, keepsSpace: Bool
    ) async throws(RequestError) {
        var position = range.lowerBound
        while position < range.upperBound {
            if let failure = image.failure { throw failure }
            switch image.planZeroes(position, to: range.upperBound, isDiscard: isDiscard, for: S.self) {
            case .skip(let end):
                position = end
            case .punch(let fileOffset, let end):
                try await zeroInPlace(fileOffset, byteCount: end - position, isDiscard: isDiscard, keepsSpace: keepsSpace)
                position = end
            case .writeZeros(let end):
                try await writeZeros(slot, position..<end)
                position = end
            case .blocked(.missing(let deviceOffset)):
                try await loadPage(layer: 0, deviceOffset: deviceOffset)
            case .blocked(.invalid(let deviceOffset)):
                throw .corruptEntry(deviceOffset: deviceOffset)
            case .blocked(.needsSpace(let clusters)):
                try await extend(atLeast: clusters)
            case .blocked(.busy(let cluster)):
                await fillEnded(cluster: cluster)
            case .blocked(.commitFirst):
                try await makeRoom()
            case .blocked(.direct), .blocked(.fill):
                preconditionFailure("zeroing never plans a write")
            }
        }
    }

    private func zeroInPlace(
        _ fileOffset: UInt64, byteCount: UInt64, isDiscard: Bool, keepsSpace: Bool
    ) async throws(RequestError) {
        defer { markUnsynced() }
        let byteCount = isSabotaged(.punchTooMuch) ? byteCount + QEDLimits.sectorSizeBytes : byteCount
        do {
            if keepsSpace {
                try await top.zeroRange(fileOffset: fileOffset, byteCount: byteCount)
            } else {
                try await top.punchHole(fileOffset: fileOffset, byteCount: byteCount)
            }
        } catch {
            // The file system cannot: a discard is then nothing, zeroes are written.
            guard error.errno == .notSupported || error.errno == Errno(rawValue: ENOSYS) else {
                throw .storage(error.errno)
            }
            if isDiscard { return }
            var done: UInt64 = 0
            while done < byteCount {
                let piece = min(byteCount - done, UInt64(staging.bufferBytes))
                try await storageWrite(staging.zeros, byteCount: Int(piece), fileOffset: fileOffset + done)
                done += piece
            }
        }
    }

    /// Writes zeros as a request would: allocates and fills where need be.
    private func writeZeros(_ slot: Int, _ range: Range<UInt64>) async throws(RequestError) {
        var position = range.lowerBound
        while position < range.upperBound {
            let end = min(position + UInt64(staging.bufferBytes), range.upperBound)
            try await writeSlowly(slot, position..<end, from: staging.zeros)
            position = end
        }
    }
}

extension Image {
    /// What zeroing or discarding means for the beginning of a range, as far as it is of one kind.
    func planZeroes<S: Storage>(
        _ start: UInt64, to end: UInt64, isDiscard: Bool, for: S.Type
    ) -> EngineQueue<S>.ZeroPlan {
        state.withLock { state -> EngineQueue<S>.ZeroPlan in
            defer { noteWants(of: state) }
            var position = start
            var punchOffset: UInt64?
            while position < end {
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
                let entry = entryForChange(at: position, changes: hides && !isDiscard, in: &state)
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
