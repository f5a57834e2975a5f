import BlockStorage
import QEDFormat
import SystemPackage

/// Reading: device offsets become extents of the chain's files, with what is in memory.
extension EngineQueue {
    enum Resolution: Equatable {
        /// Every byte has its place.
        case complete
        /// The L2 page for this device offset is not in memory.
        case missing(layer: Int, deviceOffset: UInt64)
        /// The entry for this device offset cannot be right.
        case invalid(deviceOffset: UInt64)
        /// More pieces than the list holds; those up to here are in it.
        case full(deviceOffset: UInt64)
    }

    /// Starts a read whose extents can all be found in memory.
    /// - Returns: false when it has to wait for something.
    func startRead(_ slot: Int) -> Bool {
        if startInCluster(slot, isWrite: false) { return true }
        let request = slots[slot].request
        extents.removeAll()
        guard
            resolve(request.deviceOffset, to: request.end, fromLayer: 0, judging: false, into: &extents) == .complete,
            let buffer = request.buffer
        else { return false }
        slots[slot].isSlow = false
        if !request.registered.isNone, !extents.hasZeros {
            submitRegistered(extents, slot: slot, isWrite: false)
        } else {
            let lent = borrowMemory(slot)
            guard lent == 0 else {
                finish(slot, lent)
                return true
            }
            submit(extents, slot: slot, isWrite: false, buffer: buffer, bufferStart: request.deviceOffset)
        }
        if slots[slot].outstanding == 0 { finish(slot, 0) }
        return true
    }

    /// Finds where the range's bytes are: in the first layer, from `fromLayer` on, that has them.
    /// - Parameter judging: look into pages with questionable entries, one entry at a time, under the lock.
    func resolve(
        _ start: UInt64, to end: UInt64, fromLayer: Int, judging: Bool, into list: inout ExtentList
    ) -> Resolution {
        var position = start
        while position < end {
            var layer = fromLayer
            var limit = end
            var place: (layer: Int32, fileOffset: UInt64) = (Extent.zeros, 0)
            descent: while layer < layerCount {
                let size = layers[layer].sizeBytes
                // Past the end of a layer there is nothing, whatever lies below it.
                if position >= size { break descent }
                limit = min(limit, size)
                guard let lookup = layers[layer].lookup else {
                    if let end = layers[layer].data.endOfHole(at: position) {
                        limit = min(limit, end)
                        break descent
                    }
                    place = (Int32(truncatingIfNeeded: layer), position)
                    break descent
                }
                limit = min(limit, (position | lookup.geometry.clusterMask) &+ 1)
                var entry = lookup.entry(at: position)
                if judging && entry == PageLookup.miss { entry = image.judgedEntry(at: position, layer: layer) }
                switch entry {
                case L2Entry.unallocatedValue: layer += 1
                case L2Entry.zeroValue: break descent
                case PageLookup.miss: return .missing(layer: layer, deviceOffset: position)
                case PageLookup.invalid: return .invalid(deviceOffset: position)
                default:
                    place = (Int32(truncatingIfNeeded: layer), entry &+ (position & lookup.geometry.clusterMask))
                    break descent
                }
            }
            let appended = list.append(
                layer: place.layer, fileOffset: place.fileOffset, deviceOffset: position, byteCount: limit &- position)
            guard appended else { return .full(deviceOffset: position) }
            position = limit
        }
        return .complete
    }

    /// A read that has to wait: loads the pages that are missing, then transfers; once more, carefully, what failed.
    func readSlowly(_ slot: Int, _ range: Range<UInt64>, into buffer: UnsafeMutableRawPointer, fromLayer: Int)
        async throws(RequestError)
    {
        var list = ExtentList(capacity: extentCapacity)
        defer { list.deallocate() }
        var position = range.lowerBound
        while position < range.upperBound {
            list.removeAll()
            var end = range.upperBound
            switch resolve(position, to: end, fromLayer: fromLayer, judging: true, into: &list) {
            case .complete: break
            case .full(let deviceOffset): end = deviceOffset
            case .invalid(let deviceOffset): throw .corruptEntry(deviceOffset: deviceOffset)
            case .missing(let layer, let deviceOffset):
                try await loadPage(layer: layer, deviceOffset: deviceOffset)
                continue
            }
            try await transfer(list, slot: slot, isWrite: false, buffer: buffer, bufferStart: range.lowerBound)
            position = end
        }
    }

    /// Moves the data of all extents at once, and one by one, continuing short transfers, what did not go well.
    func transfer(
        _ list: ExtentList, slot: Int, isWrite: Bool, buffer: UnsafeMutableRawPointer, bufferStart: UInt64
    ) async throws(RequestError) {
        slots[slot].firstError = 0
        // Of a write that fails some may have been written.
        defer { if isWrite { markUnsynced() } }
        submit(list, slot: slot, isWrite: isWrite, buffer: buffer, bufferStart: bufferStart)
        await transfersCompleted(slot)
        guard slots[slot].firstError != 0 else { return }
        slots[slot].firstError = 0
        do {
            for index in 0..<list.count where list[index].layer != Extent.zeros {
                let extent = list[index]
                let position = buffer + Int(extent.deviceOffset - bufferStart)
                if isWrite {
                    try await layers[Int(extent.layer)].storage.writeFully(
                        from: position, byteCount: Int(extent.byteCount), fileOffset: extent.fileOffset)
                } else {
                    try await readFile(
                        Int(extent.layer), into: position, byteCount: Int(extent.byteCount),
                        fileOffset: extent.fileOffset)
                }
            }
        } catch {
            throw .storage(error.errno)
        }
    }

    /// Reads from a file of the chain, in full. An image may end up to 511 bytes before its last cluster does; as for
    /// QEMU these are zeros. A file that has become shorter since it was opened is an I/O error.
    func readFile(
        _ layer: Int, into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        let count = try await layers[layer].storage.read(into: buffer, byteCount: byteCount, fileOffset: fileOffset)
        if count == byteCount { return }
        guard byteCount - count < Int(QEDLimits.sectorSizeBytes),
            fileOffset + UInt64(count) >= layers[layer].fileSizeBytes
        else { throw StorageError(.read, fileOffset: fileOffset, byteCount: UInt64(byteCount), errno: .ioError) }
        (buffer + count).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - count)
    }
}
