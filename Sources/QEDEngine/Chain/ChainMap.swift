import BlockStorage
import QEDFormat

/// Where the bytes of the device lie in the files of the chain, as far as that is in memory. Waits for nothing.
struct ChainMap<S: Storage> {
    enum MissingPage: Equatable {
        /// Of the image's L2 tables.
        case image(deviceOffset: UInt64)
        /// Of the chain.
        case chain(deviceOffset: UInt64)

        var deviceOffset: UInt64 {
            switch self {
            case .image(let deviceOffset), .chain(let deviceOffset): deviceOffset
            }
        }
    }

    enum Resolution: Equatable {
        /// Every byte has its place.
        case complete
        /// A page for this device offset is not in memory.
        case missing(MissingPage)
        /// The entry for this device offset cannot be right.
        case invalid(deviceOffset: UInt64)
        /// More pieces than the list holds; those up to here are in it.
        case full(deviceOffset: UInt64)
    }

    let files: QueueFiles<S>
    private var image: Image { files.image }

    /// Finds where the range's bytes are.
    /// - Parameters:
    ///   - beneath: where the image has nothing: only in the layers beneath it.
    ///   - judging: look into pages of the image with questionable entries, one entry at a time, under the lock.
    func resolve(
        _ start: UInt64, to end: UInt64, beneath: Bool, judging: Bool, into list: inout ExtentList
    ) -> Resolution {
        precondition(start <= end, "a range that ends before it begins")
        let clusterMask = files.topLookup.geometry.clusterMask
        var position = start
        while position < end {
            var limit = end
            var place: (layer: Int32, fileOffset: UInt64) = (Extent.zeros, 0)
            var entry: UInt64
            if beneath {
                // The last cluster may go on behind the disk's end, where nothing is.
                entry = position < image.sizeBytes ? L2Entry.unallocatedValue : L2Entry.zeroValue
            } else {
                entry = files.topLookup.entry(at: position)
                limit = min(limit, (position | clusterMask) &+ 1)
            }
            if entry > PageLookup.invalid {
                place = (0, entry &+ (position & clusterMask))
            } else if entry != L2Entry.zeroValue, let chain = files.chainLookup {
                // It knows of the image as well, whether the image's page is in memory or not.
                let resolved = chain.entry(at: position)
                limit = min(limit, (position | chain.clusterMask) &+ 1)
                if resolved.isOfLayer {
                    place = visible(
                        files.layerCount &- 1 &- resolved.layerNumber, resolved.fileOffset &+ (position & chain.clusterMask),
                        at: position, limit: &limit)
                    if resolved.isInvalid && place.layer != Extent.zeros { return .invalid(deviceOffset: position) }
                } else if resolved == .unknown {
                    return .missing(.chain(deviceOffset: position))
                }
            } else {
                if judging && entry == PageLookup.miss { entry = image.judgedEntry(at: position) }
                switch entry {
                case L2Entry.unallocatedValue:
                    if files.layerCount > 1 { place = visible(1, position, at: position, limit: &limit) }
                case L2Entry.zeroValue: break
                case PageLookup.miss: return .missing(.image(deviceOffset: position))
                case PageLookup.invalid: return .invalid(deviceOffset: position)
                default: place = (0, entry &+ (position & clusterMask))
                }
            }
            let appended = list.append(
                layer: place.layer, fileOffset: place.fileOffset, deviceOffset: position, byteCount: limit &- position)
            guard appended else { return .full(deviceOffset: position) }
            position = limit
        }
        return .complete
    }

    /// Whether the image's own page is in memory, and says where the byte is: in the image, or nowhere.
    func imageDecides(_ deviceOffset: UInt64) -> Bool {
        let entry = files.topLookup.entry(at: deviceOffset)
        return entry > PageLookup.invalid || entry == L2Entry.zeroValue
    }

    /// What is seen of a place in a layer: nothing past the end of any layer down to it, and nothing where a raw file has a hole.
    @inline(__always)
    private func visible(
        _ layer: Int, _ fileOffset: UInt64, at position: UInt64, limit: inout UInt64
    ) -> (layer: Int32, fileOffset: UInt64) {
        precondition(layer >= 0 && layer < files.layerCount, "no such file in the chain")
        let end = files.layers[layer].visibleEnd
        if position >= end { return (Extent.zeros, 0) }
        limit = min(limit, end)
        if files.layers[layer].isRaw, let end = files.layers[layer].data.endOfHole(at: position) {
            limit = min(limit, end)
            return (Extent.zeros, 0)
        }
        return (Int32(truncatingIfNeeded: layer), fileOffset)
    }

    /// What lies beneath the image where a range is about to be written, in whole clusters from that of `position` on.
    /// - Returns: up to where nothing but zeros lies beneath. Clusters over zeros need no copy and no order: they are fresh.
    ///   `position` when there is something, or it cannot be told without waiting.
    func beneath(_ position: UInt64, to end: UInt64, into list: inout ExtentList) -> UInt64 {
        list.removeAll()
        guard position < image.backingEnd else { return position }
        let mask = files.topLookup.geometry.clusterMask
        let start = position & ~mask
        // What is not complete ends where it is not known.
        _ = resolve(start, to: (end &- 1 | mask) &+ 1, beneath: true, judging: false, into: &list)
        guard list.count > 0, list[0].layer == Extent.zeros else { return position }
        return start + UInt64(list[0].byteCount)
    }

    /// Whether the raw file at the bottom of the chain has to be asked what lies at `deviceOffset`, before anything is allocated
    /// there: a hole is not copied.
    func mustLearnHoles(at deviceOffset: UInt64) -> Bool {
        let bottom = files.layers + (files.layerCount - 1)
        return bottom.pointee.isRaw && deviceOffset < bottom.pointee.sizeBytes && bottom.pointee.storage.tellsHolesTruly
            && !bottom.pointee.data.knows(deviceOffset)
    }

    /// A write of a whole cluster does not ask it then: nothing of what lies beneath is copied.
    var mayBeAway: Bool { files.layers[files.layerCount - 1].storage.mayBeAway }

    /// Asks it, unless another queue has. Where the answer could be wrong it is not asked, and everything counts as data.
    func learnHoles(at deviceOffset: UInt64) async {
        let bottom = files.layers + (files.layerCount - 1)
        precondition(bottom.pointee.isRaw && bottom.pointee.storage.tellsHolesTruly, "a file that is not asked")
        let sizeBytes = bottom.pointee.sizeBytes
        let data = await image.bottomData.data(from: deviceOffset, fileSizeBytes: sizeBytes) {
            await bottom.pointee.storage.findData(from: deviceOffset)
        }
        bottom.pointee.data.learn(data, from: deviceOffset, fileSizeBytes: sizeBytes)
    }
}
