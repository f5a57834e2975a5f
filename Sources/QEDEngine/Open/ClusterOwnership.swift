import Glibc

/// Which clusters of a file have an owner: one bit each.
///
/// The bits are mapped, not allocated: only the pages that are touched take memory, so a huge sparse file costs what it
/// references.
struct ClusterOwnership: ~Copyable {
    // SAFETY: mapped here with `byteCount` bytes, unmapped in deinit; every access is bounded by `clusterCount`.
    private let bits: UnsafeMutablePointer<UInt64>
    private let byteCount: Int
    let clusterCount: UInt64
    /// The highest cluster that has an owner, plus one.
    private(set) var end: UInt64 = 0

    /// More clusters than these (32 TiB of the smallest) would need a mapping of more than 1 GiB.
    static let largestClusterCount: UInt64 = 1 << 33

    private init(bits: UnsafeMutablePointer<UInt64>, byteCount: Int, clusterCount: UInt64) {
        self.bits = bits
        self.byteCount = byteCount
        self.clusterCount = clusterCount
    }

    /// - Returns: nil when the file has too many clusters, or there is no address space for them.
    static func make(clusterCount: UInt64) -> ClusterOwnership? {
        guard clusterCount <= largestClusterCount else { return nil }
        let byteCount = max((Int(clusterCount) + 63) / 64 * 8, 8)
        let mapped = mmap(
            nil, byteCount, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | Int32(MAP_NORESERVE), -1, 0)
        guard let mapped, mapped != MAP_FAILED else { return nil }
        return ClusterOwnership(
            bits: mapped.assumingMemoryBound(to: UInt64.self), byteCount: byteCount, clusterCount: clusterCount)
    }

    deinit { munmap(bits, byteCount) }

    /// Gives `count` clusters an owner.
    /// - Returns: how many of them had one already.
    mutating func claim(first: UInt64, count: UInt64) -> UInt64 {
        precondition(first <= clusterCount && count <= clusterCount - first, "clusters outside the file")
        var taken: UInt64 = 0
        for cluster in first..<(first + count) {
            let mask: UInt64 = 1 << (cluster & 63)
            if bits[Int(cluster >> 6)] & mask != 0 { taken += 1 }
            bits[Int(cluster >> 6)] |= mask
        }
        end = max(end, first + count)
        return taken
    }
}
