import BlockStorage
import IOURing

/// Requests whose data is in a registered buffer: pages of the kernel, which a file can take and fill but this process
/// cannot touch.
///
/// What goes straight between such a buffer and the files of the chain does so without a copy. Everything else (copies
/// on write, zeros, parts of a cluster, whatever is run again after an error) first borrows memory for the request, and
/// goes on like any other.
extension EngineQueue {
    /// Starts a transfer of a request's bytes from `start` on; it counts as outstanding already.
    @inline(never)
    func submitRegistered(
        _ slot: Int, isWrite: Bool, layer: Int, fileOffset: UInt64, byteCount: UInt32, from start: UInt64
    ) {
        let buffer = slots[slot].request.registered.advanced(by: start)
        if isWrite { statistics.dataWrites &+= 1 } else { statistics.dataReads &+= 1 }
        statistics.registeredTransfers &+= 1
        layers[layer].storage.submit(
            RegisteredTransfer(isWrite: isWrite, buffer: buffer, byteCount: byteCount, fileOffset: fileOffset),
            token: dataToken(slot, byteCount: byteCount))
    }

    /// Submits the transfers of a request whose extents are known, and none of which is of zeros; each counts as
    /// outstanding.
    func submitRegistered(_ list: ExtentList, slot: Int, isWrite: Bool) {
        let bufferStart = slots[slot].request.deviceOffset
        for index in 0..<list.count {
            let extent = list[index]
            slots[slot].outstanding &+= 1
            submitRegistered(
                slot, isWrite: isWrite, layer: Int(extent.layer), fileOffset: extent.fileOffset,
                byteCount: extent.byteCount, from: extent.deviceOffset &- bufferStart)
        }
    }

    /// Has the request's data in its memory from now on, where it is not already.
    /// - Returns: 0, or the negative errno that the request is to be answered with.
    func borrowMemory(_ slot: Int) -> Int32 {
        let request = slots[slot].request
        if request.registered.isNone { return 0 }
        guard let lendMemory else { preconditionFailure("a registered buffer, and nobody who lends memory for it") }
        statistics.borrowedRequests &+= 1
        let result = lendMemory(slot, request)
        if result == 0 { slots[slot].request.registered = .none }
        return result
    }
}
