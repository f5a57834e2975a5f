import IOURing

/// The clusters that are being copied from the backing file at this moment.
///
/// A fill owns its clusters of the device from the reservation until the new entries are published (or the fill has
/// failed): other writes, zeroes and discards to them wait, so a fill can never overwrite newer data. Reads do not wait:
/// until the entries are published they get the old content, which is what a read beside an unfinished write may get.
struct ClusterFills {
    private struct Fill {
        var firstCluster: UInt64
        var count: UInt64
        var waiters: [CompletionContinuation] = []
    }

    // A fill per queue and tag at most: a list that is searched, in a deterministic order.
    private var fills: [Fill] = []

    var isEmpty: Bool { fills.isEmpty }

    func contains(cluster: UInt64) -> Bool {
        fills.contains { cluster >= $0.firstCluster && cluster - $0.firstCluster < $0.count }
    }

    mutating func begin(firstCluster: UInt64, count: UInt64) {
        precondition(count > 0, "a fill of nothing")
        precondition(
            !fills.contains { firstCluster < $0.firstCluster + $0.count && $0.firstCluster < firstCluster + count },
            "two fills of one cluster")
        fills.append(Fill(firstCluster: firstCluster, count: count))
    }

    /// - Returns: the tasks that waited for one of its clusters; each looks again.
    mutating func end(firstCluster: UInt64) -> [CompletionContinuation] {
        guard let index = fills.firstIndex(where: { $0.firstCluster == firstCluster }) else {
            preconditionFailure("a fill that was not begun")
        }
        let waiters = fills[index].waiters
        fills.swapAt(index, fills.count - 1)
        fills.removeLast()
        precondition(!contains(cluster: firstCluster), "a fill that goes on after its end")
        if isSabotaged(.dropFillWaiters) { return [] }
        return waiters
    }

    /// Adds a task that waits for the fill of `cluster`.
    /// - Returns: false when no fill has it: look again at once.
    mutating func wait(for cluster: UInt64, _ continuation: CompletionContinuation) -> Bool {
        let index = fills.firstIndex { cluster >= $0.firstCluster && cluster - $0.firstCluster < $0.count }
        guard let index else { return false }
        precondition(cluster < fills[index].firstCluster + fills[index].count, "a task waits for another cluster's fill")
        fills[index].waiters.append(continuation)
        return true
    }
}
