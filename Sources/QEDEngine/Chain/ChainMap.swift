import BlockStorage
import QEDFormat

/// Where the bytes of the device lie in the files of the chain, as far as that is in memory. Waits for nothing.
struct ChainMap<S: Storage> {
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

    let files: QueueFiles<S>
    private var image: Image { files.image }

    /// Finds where the range's bytes are: in the first layer, from `fromLayer` on, that has them.
    /// - Parameter judging: look into pages with questionable entries, one entry at a time, under the lock.
    func resolve(
        _ start: UInt64, to end: UInt64, fromLayer: Int, judging: Bool, into list: inout ExtentList
    ) -> Resolution {
        precondition(fromLayer >= 0 && start <= end, "a range that ends before it begins")
        var position = start
        while position < end {
            var layer = fromLayer
            var limit = end
            var place: (layer: Int32, fileOffset: UInt64) = (Extent.zeros, 0)
            descent: while layer < files.layerCount {
                let size = files.layers[layer].sizeBytes
                // Past the end of a layer there is nothing, whatever lies below it.
                if position >= size { break descent }
                limit = min(limit, size)
                guard let lookup = files.layers[layer].lookup else {
                    if let end = files.layers[layer].data.endOfHole(at: position) {
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

    /// What lies beneath the image where a range is about to be written, in whole clusters from that of `position` on.
    /// - Returns: up to where nothing but zeros lies beneath. Clusters over zeros need no copy and no order: they are fresh.
    ///   `position` when there is something, or it cannot be told without waiting.
    func beneath(_ position: UInt64, to end: UInt64, into list: inout ExtentList) -> UInt64 {
        list.removeAll()
        guard position < image.backingEnd else { return position }
        let mask = files.topLookup.geometry.clusterMask
        let start = position & ~mask
        // What is not complete ends where it is not known.
        _ = resolve(start, to: (end &- 1 | mask) &+ 1, fromLayer: 1, judging: false, into: &list)
        guard list.count > 0, list[0].layer == Extent.zeros else { return position }
        return start + UInt64(list[0].byteCount)
    }

    /// Whether the raw file at the bottom of the chain has to be asked what lies at `deviceOffset`, before anything is allocated
    /// there: a hole is not copied.
    func mustLearnHoles(at deviceOffset: UInt64) -> Bool {
        let bottom = files.layers + (files.layerCount - 1)
        return bottom.pointee.lookup == nil && deviceOffset < bottom.pointee.sizeBytes && bottom.pointee.storage.tellsHolesTruly
            && !bottom.pointee.data.knows(deviceOffset)
    }

    /// Asks it, unless another queue has. Where the answer could be wrong it is not asked, and everything counts as data.
    func learnHoles(at deviceOffset: UInt64) async {
        let bottom = files.layers + (files.layerCount - 1)
        precondition(bottom.pointee.lookup == nil && bottom.pointee.storage.tellsHolesTruly, "a file that is not asked")
        let sizeBytes = bottom.pointee.sizeBytes
        let data = await image.bottomData.data(from: deviceOffset, fileSizeBytes: sizeBytes) {
            await bottom.pointee.storage.findData(from: deviceOffset)
        }
        bottom.pointee.data.learn(data, from: deviceOffset, fileSizeBytes: sizeBytes)
    }
}
