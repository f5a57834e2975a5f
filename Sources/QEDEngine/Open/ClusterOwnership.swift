import Glibc

/// Which clusters of a file have an owner: one bit each.
///
/// The bits are mapped, not allocated: only the pages that are touched take memory, so a huge sparse file costs what it
/// references.
@usableFromInline
package struct ClusterOwnership: ~Copyable {
    // SAFETY: mapped here with `byteCount` bytes, unmapped in deinit; every access is bounded by `clusterCount`.
    @usableFromInline let bits: UnsafeMutablePointer<UInt64>
    private let byteCount: Int
    @usableFromInline package let clusterCount: UInt64
    /// The highest cluster that has an owner, plus one.
    @usableFromInline package private(set) var end: UInt64 = 0

    /// More clusters than these (32 TiB of the smallest) would need a mapping of more than 1 GiB.
    package static let largestClusterCount: UInt64 = 1 << 33

    private init(bits: UnsafeMutablePointer<UInt64>, byteCount: Int, clusterCount: UInt64) {
        self.bits = bits
        self.byteCount = byteCount
        self.clusterCount = clusterCount
    }

    /// - Returns: nil when the file has too many clusters, or there is no address space for them.
    package static func make(clusterCount: UInt64) -> ClusterOwnership? {
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
    @inline(__always)
    package mutating func claim(first: UInt64, count: UInt64) -> UInt64 {
        precondition(first <= clusterCount && count <= clusterCount - first, "clusters outside the file")
        var taken = 0
        var cluster = first
        let limit = first + count
        while cluster < limit {
            let word = Int(cluster >> 6)
            let mask = ClusterOwnership.mask(of: cluster, limit: limit)
            taken += (bits[word] & mask).nonzeroBitCount
            bits[word] |= mask
            cluster = (cluster | 63) + 1
        }
        end = max(end, limit)
        return UInt64(taken)
    }

    /// Gives one cluster, which lies in the file, an owner.
    /// - Returns: 1 if it had one already, else 0.
    @inlinable @inline(__always)
    package mutating func claim(one cluster: UInt64) -> UInt64 {
        precondition(cluster < clusterCount, "a cluster outside the file")
        let word = bits + Int(truncatingIfNeeded: cluster &>> 6)
        let shift = cluster & 63
        let old = word.pointee
        word.pointee = old | (1 &<< shift)
        if cluster >= end { end = cluster &+ 1 }
        return (old &>> shift) & 1
    }

    /// How many of `clusters` have an owner.
    package func ownedCount(in clusters: Range<UInt64>) -> UInt64 {
        precondition(clusters.upperBound <= clusterCount, "clusters outside the file")
        var owned = 0
        var cluster = clusters.lowerBound
        while cluster < clusters.upperBound {
            let mask = ClusterOwnership.mask(of: cluster, limit: clusters.upperBound)
            owned += (bits[Int(cluster >> 6)] & mask).nonzeroBitCount
            cluster = (cluster | 63) + 1
        }
        return UInt64(owned)
    }

    package func isOwned(_ cluster: UInt64) -> Bool {
        precondition(cluster < clusterCount, "a cluster outside the file")
        return bits[Int(cluster >> 6)] & (1 << (cluster & 63)) != 0
    }

    /// The first run of clusters without an owner that begins at `start` or later; nil where there is none.
    package func firstUnowned(from start: UInt64) -> Range<UInt64>? {
        guard let first = firstCluster(from: start, owned: false) else { return nil }
        return first..<(firstCluster(from: first, owned: true) ?? clusterCount)
    }

    private func firstCluster(from start: UInt64, owned: Bool) -> UInt64? {
        var cluster = start
        while cluster < clusterCount {
            let word = owned ? bits[Int(cluster >> 6)] : ~bits[Int(cluster >> 6)]
            let rest = word & (UInt64.max << (cluster & 63))
            if rest != 0 {
                let found = (cluster & ~63) + UInt64(rest.trailingZeroBitCount)
                precondition(found >= start, "a cluster before those that were asked for")
                return found < clusterCount ? found : nil
            }
            cluster = (cluster | 63) + 1
        }
        return nil
    }

    /// The bits of the word that holds `cluster`, from that cluster on and below `limit`.
    @inline(__always)
    private static func mask(of cluster: UInt64, limit: UInt64) -> UInt64 {
        let wordEnd = (cluster | 63) + 1
        let upper = limit < wordEnd ? UInt64.max >> (wordEnd - limit) : UInt64.max
        return upper & (UInt64.max << (cluster & 63))
    }
}
