import QEDFormat

/// A copy on write: new clusters of the file for clusters of the device beneath which there is data, part of which a request
/// replaces.
///
/// Made once, under the image's lock (`planAllocation`): the clusters are reserved, their page is pinned, and nobody else
/// changes them until the plan has been published or abandoned, which whoever performs it must do.
struct CopyPlan {
    /// Of the device, and how many.
    var firstCluster: UInt64
    var count: UInt64
    /// Where their new clusters lie, one after the other.
    var fileOffset: UInt64
    /// The slot of the L2 page that maps them all; it is pinned.
    var pageSlot: Int
    var clusterShift: UInt64
    /// The part of the device that the request writes: nothing of the first cluster in front of it, and of the last one
    /// behind it, is the request's.
    var start: UInt64
    var end: UInt64
    /// The last cluster hides the backing file already: its old content is zeros. (The first one never does.)
    var tailIsZeros: Bool
    /// Something may have been written to its new clusters.
    var isBegun = false

    var clustersStart: UInt64 { firstCluster << clusterShift }
    var clustersEnd: UInt64 { (firstCluster + count) << clusterShift }
    var sizeBytes: UInt64 { count << clusterShift }
    /// Where in the file the byte of the device belongs.
    func fileOffset(of deviceOffset: UInt64) -> UInt64 {
        precondition(deviceOffset >= clustersStart && deviceOffset <= clustersEnd, "another plan's")
        return fileOffset + (deviceOffset - clustersStart)
    }
    /// No old content is left.
    var isWhole: Bool { start == clustersStart && end == clustersEnd }

    /// The old content in front of the request's data, and behind it up to `limit`. What new clusters hold is zeros until it
    /// is written, so where nothing lay beneath nothing is copied.
    func oldContent(upTo limit: UInt64) -> (head: Range<UInt64>, tail: Range<UInt64>) {
        precondition(clustersStart <= start && start < end && end <= clustersEnd, "a plan that writes outside its clusters")
        let head = isSabotaged(.fillWithoutHead) ? start..<start : clustersStart..<start
        let tailEnd = tailIsZeros || isSabotaged(.fillWithoutTail) ? end : max(end, min(clustersEnd, limit))
        return (head, end..<tailEnd)
    }
}
