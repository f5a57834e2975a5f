import BlockStorage
import QEDFormat
import SystemPackage

/// Reads of the device that may have to wait for a table, and transfers that go on where one fell short: for tasks.
final class ChainReader<S: Storage>: @unchecked Sendable {
    // SAFETY: used by the queue's thread alone.
    private let files: QueueFiles<S>
    private let map: ChainMap<S>
    private let pages: PageLoader<S>
    private let transfers: Transfers<S>
    private let lists: ExtentListPool

    init(map: ChainMap<S>, pages: PageLoader<S>, transfers: Transfers<S>, lists: ExtentListPool) {
        files = map.files
        self.map = map
        self.pages = pages
        self.transfers = transfers
        self.lists = lists
    }

    /// Loads the pages that are missing, then transfers; once more, carefully, what failed.
    /// - Parameter group: of the request for which it is read; nothing of it is under way.
    func read(
        _ range: Range<UInt64>, into buffer: UnsafeMutableRawPointer, fromLayer: Int, _ group: TransferGroup
    ) async throws(RequestError) {
        precondition(transfers.isIdle(group), "the request has transfers under way")
        var list = lists.take()
        defer { lists.giveBack(list) }
        var position = range.lowerBound
        while position < range.upperBound {
            list.removeAll()
            var end = range.upperBound
            switch map.resolve(position, to: end, fromLayer: fromLayer, judging: true, into: &list) {
            case .complete: break
            case .full(let deviceOffset): end = deviceOffset
            case .invalid(let deviceOffset): throw .corruptEntry(deviceOffset: deviceOffset)
            case .missing(let layer, let deviceOffset):
                try await pages.load(layer: layer, deviceOffset: deviceOffset)
                continue
            }
            precondition(end > position, "a read that does not get on")
            try await transfer(list, isWrite: false, buffer: buffer, bufferStart: range.lowerBound, group)
            position = end
        }
    }

    /// Moves the data of all extents at once, and one by one, continuing short transfers, what did not go well.
    func transfer(
        _ list: ExtentList, isWrite: Bool, buffer: UnsafeMutableRawPointer, bufferStart: UInt64, _ group: TransferGroup
    ) async throws(RequestError) {
        precondition(transfers.isIdle(group), "the request has transfers under way")
        // Of a write that fails some may have been written.
        defer { if isWrite { files.markUnsynced() } }
        transfers.start(group, isWrite: isWrite, list, buffer: buffer, bufferStart: bufferStart)
        await transfers.finished(group)
        guard transfers.takeFailure(group) else { return }
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
