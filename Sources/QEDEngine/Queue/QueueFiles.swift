import BlockStorage
import IOURing
import QEDFormat
import Synchronization
import SystemPackage

/// A layer of the chain, with what the inline path needs of it in one place.
struct QueueLayer {
    var isRaw: Bool
    var sizeBytes: UInt64
    /// Where the first of the layers ends, down to this one: nothing of it is seen behind that.
    var visibleEnd: UInt64
    /// Length of the file when it was opened.
    var fileSizeBytes: UInt64
    var storage: any BaseStorage
    /// Of a raw one: which part of it is known to be data, and which a hole.
    var data = KnownData()
}

/// The image and the files of its chain as one queue reaches them: what all parts of the queue share.
///
/// A value of references, cheap to copy; the queue makes it, and frees its memory (`deallocate`).
struct QueueFiles<S: Storage>: @unchecked Sendable {
    // SAFETY: the memory is touched by the queue's thread alone; the image is shared and locked.

    let image: Image
    /// The image's own file, and its tables as far as they are in memory: here so that the inline path follows no reference.
    let top: S
    let topLookup: PageLookup
    /// Where the chain has several QED files.
    let chainLookup: ResolvedLookup?
    let layers: UnsafeMutablePointer<QueueLayer>
    let layerCount: Int
    /// Whether a registered buffer can be filled from any file of the chain.
    let allTakeRegisteredBuffers: Bool
    let counters: UnsafeMutablePointer<EngineStatistics>

    /// - Parameter storages: this queue's, of each file of the chain.
    /// - Parameter counters: of the queue from which this one takes over, which go on. Whoever is left frees them.
    /// - Parameter below: of the queue of what was the top before: what it knows of holes stays true.
    init(
        image: Image, storages: ChainStorage<S>, counters: UnsafeMutablePointer<EngineStatistics>?, over below: QueueFiles<S>?
    ) {
        precondition(storages.count == image.layers.count, "a storage for each file of the chain")
        self.image = image
        top = storages.top
        allTakeRegisteredBuffers = storages.bases.allSatisfy(\.takesRegisteredBuffers)
        topLookup = image.top.lookup
        chainLookup = image.resolved?.lookup
        layerCount = storages.count
        layers = .allocate(capacity: storages.count)
        if let counters {
            self.counters = counters
        } else {
            self.counters = .allocate(capacity: 1)
            self.counters.initialize(to: EngineStatistics())
        }
        var visibleEnd = UInt64.max
        for index in 0..<layerCount {
            let layer = image.layers[index]
            visibleEnd = min(visibleEnd, layer.sizeBytes)
            (layers + index).initialize(
                to: QueueLayer(
                    isRaw: layer.isRaw, sizeBytes: layer.sizeBytes, visibleEnd: visibleEnd,
                    fileSizeBytes: layer.fileSizeBytes, storage: storages[index]))
            if index > 0, let below { (layers + index).pointee.data = (below.layers + index - 1).pointee.data }
        }
    }

    /// - Parameter keepingCounters: another queue has them.
    func deallocate(keepingCounters: Bool) {
        layers.deinitialize(count: layerCount)
        layers.deallocate()
        guard !keepingCounters else { return }
        counters.deinitialize(count: 1)
        counters.deallocate()
    }

    /// What was the top before has its final length.
    func adoptTables() { (layers + 1).pointee.fileSizeBytes = image.layers[1].fileSizeBytes }

    /// Whether the chain ends with a raw file, or a base elsewhere.
    var bottomIsRaw: Bool { layers[layerCount - 1].isRaw }

    /// The file holds something that no sync covers. Called after it was written, in part at least, before it is acknowledged.
    @inline(__always)
    func markUnsynced() {
        if !image.isUnsynced.load(ordering: .acquiring) { image.isUnsynced.store(true, ordering: .releasing) }
    }

    /// Writes all of it to the image, or throws when part of it may have been written.
    func write(_ buffer: UnsafeRawPointer, byteCount: Int, fileOffset: UInt64) async throws(RequestError) {
        precondition(!image.isReadOnly && byteCount > 0, "a write of nothing, or to an image that is only read")
        defer { markUnsynced() }
        do {
            try await top.writeFully(from: buffer, byteCount: byteCount, fileOffset: fileOffset)
        } catch {
            throw .storage(error.errno)
        }
    }

    /// Reads from a file of the chain, in full. An image may end up to 511 bytes before its last cluster does; as for
    /// QEMU these are zeros. A file that has become shorter since it was opened is an I/O error.
    func read(
        _ layer: Int, into buffer: UnsafeMutableRawPointer, byteCount: Int, fileOffset: UInt64
    ) async throws(StorageError) {
        precondition(layer >= 0 && layer < layerCount, "no such file in the chain")
        let count = try await layers[layer].storage.read(into: buffer, byteCount: byteCount, fileOffset: fileOffset)
        if count == byteCount { return }
        guard byteCount - count < Int(QEDLimits.sectorSizeBytes),
            fileOffset + UInt64(count) >= layers[layer].fileSizeBytes
        else { throw StorageError(.read, fileOffset: fileOffset, byteCount: UInt64(byteCount), errno: .ioError) }
        (buffer + count).initializeMemory(as: UInt8.self, repeating: 0, count: byteCount - count)
    }
}
