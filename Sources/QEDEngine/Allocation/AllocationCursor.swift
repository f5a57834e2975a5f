/// Hands out the clusters at the end of the image, and only those that the file already has for certain.
///
/// The file is extended ahead, in chunks, and the new length is made durable before any cluster of it is handed out. So
/// no table entry can ever point past the end of the file, whatever a crash leaves behind, and every fresh cluster reads
/// as zeros until it is written. Clusters that were given back unwritten are handed out again before others. A pure value:
/// it does no I/O; whoever gets an `ExtensionStep.extend` performs it.
struct AllocationCursor {
    /// What a caller has to do to get more clusters.
    enum ExtensionStep: Equatable {
        /// Make the file reach `end`, durably, then report with `extensionEnded`. At least `leastEnd` is needed.
        case extend(from: UInt64, end: UInt64, leastEnd: UInt64)
        /// Somebody else is at it: wait, then try again.
        case wait
        /// There is enough already.
        case enough
    }

    static let standardSmallestChunkBytes: UInt64 = 8 << 20
    static let largestChunkBytes: UInt64 = 256 << 20

    let clusterSizeBytes: UInt64
    /// File offset of the next cluster to be handed out, where none were given back.
    private(set) var nextFileOffset: UInt64
    /// The file is at least this long, durably; what lies between `nextFileOffset` and here has never been written.
    private(set) var durableEnd: UInt64
    /// Whether what is handed out may be published, and whether the file's length is about to change.
    private(set) var needCheck: NeedCheckState
    /// An extension, a trim, or another change of the header is under way: one at a time.
    var isBusy: Bool { needCheck.isBusy || isHeaderChanging }
    /// Something else than the bits of `needCheck` is being changed in the header.
    private var isHeaderChanging = false
    /// Below `nextFileOffset`: taken, and given back as fresh as they were.
    private var givenBack: [Range<UInt64>] = []
    private let smallestChunkBytes: UInt64
    private(set) var chunkBytes: UInt64
    /// The file is not extended ahead beyond this.
    private let aheadLimit: UInt64

    /// - Parameters:
    ///   - endOfClusters: end of the last cluster in use, a multiple of the cluster size: the file's length.
    ///   - aheadLimit: of the file's length; more only where somebody needs it at once.
    init(
        smallestChunkBytes: UInt64 = AllocationCursor.standardSmallestChunkBytes, clusterSizeBytes: UInt64,
        endOfClusters: UInt64, needCheck: NeedCheckState = .clear, aheadLimit: UInt64 = .max
    ) {
        precondition(endOfClusters % clusterSizeBytes == 0, "the image does not end with a cluster")
        precondition(smallestChunkBytes > 0, "extensions by nothing")
        self.smallestChunkBytes = smallestChunkBytes
        chunkBytes = smallestChunkBytes
        self.clusterSizeBytes = clusterSizeBytes
        self.aheadLimit = aheadLimit / clusterSizeBytes * clusterSizeBytes
        self.needCheck = needCheck
        nextFileOffset = endOfClusters
        durableEnd = endOfClusters
    }

    /// What holds before and after each transition: nobody has a cluster that the file does not have for certain.
    private var holds: Bool {
        nextFileOffset <= durableEnd && nextFileOffset % clusterSizeBytes == 0 && durableEnd % clusterSizeBytes == 0
    }

    var availableClusters: Int { Int((durableEnd - nextFileOffset) / clusterSizeBytes) }

    /// Takes `clusters` contiguous clusters.
    /// - Returns: the file offset of the first, or nil when the file has to be extended first.
    mutating func reserve(_ clusters: Int) -> UInt64? {
        precondition(clusters > 0 && holds, "nothing to reserve, or past the end of the file")
        if isSabotaged(.reservePastDurableEnd) && nextFileOffset % (4 * clusterSizeBytes) == 0 {
            durableEnd = max(durableEnd, nextFileOffset + UInt64(clusters) * clusterSizeBytes)
        }
        // Not beside a trim, which waits for nothing to be allocated.
        let bytes = UInt64(clusters) * clusterSizeBytes
        if !isBusy, let index = givenBack.firstIndex(where: { UInt64($0.count) >= bytes }) {
            let run = givenBack.remove(at: index)
            if UInt64(run.count) > bytes { givenBack.append((run.lowerBound + bytes)..<run.upperBound) }
            precondition(run.lowerBound + bytes <= nextFileOffset, "clusters that were given back, and were nobody's")
            return run.lowerBound
        }
        guard clusters <= availableClusters else { return nil }
        let fileOffset = nextFileOffset
        nextFileOffset += UInt64(clusters) * clusterSizeBytes
        precondition(holds, "clusters past the end of the file")
        return fileOffset
    }

    /// Takes back clusters that `reserve` has handed out and nobody has written to.
    mutating func giveBack(at fileOffset: UInt64, clusters: Int) {
        let end = fileOffset + UInt64(clusters) * clusterSizeBytes
        precondition(clusters > 0 && end <= nextFileOffset, "clusters that were never handed out")
        precondition(fileOffset % clusterSizeBytes == 0, "parts of clusters are given back")
        precondition(!givenBack.contains { $0.overlaps(fileOffset..<end) }, "clusters that are given back twice")
        givenBack.append(fileOffset..<end)
    }

    /// Whether it is time to extend before somebody has to wait for it: less than half a chunk is left.
    var wantsExtension: Bool {
        !isBusy && durableEnd > 0 && durableEnd < aheadLimit && durableEnd - nextFileOffset < chunkBytes / 2
    }

    /// Begins an extension unless `clusters` are there already and entries may be changed. One runs at a time.
    mutating func beginExtension(atLeast clusters: Int) -> ExtensionStep {
        if isBusy { return .wait }
        if needCheck.allowsChanges && clusters <= availableClusters && !wantsExtension { return .enough }
        let needed = UInt64(max(clusters, 1)) * clusterSizeBytes
        let missing = needed > durableEnd - nextFileOffset ? needed - (durableEnd - nextFileOffset) : clusterSizeBytes
        let (leastEnd, overflow) = durableEnd.addingReportingOverflow(missing)
        precondition(!overflow, "an image beyond 2^64 bytes")
        let ahead = aheadLimit > durableEnd ? min(chunkBytes, aheadLimit - durableEnd) : 0
        let wanted = max(missing, ahead)
        needCheck.extensionBegins()
        precondition(isBusy && holds, "an extension that others cannot see")
        return .extend(from: durableEnd, end: durableEnd + roundedUp(wanted), leastEnd: leastEnd)
    }

    /// The extension is durable up to `end`, or has failed (nil).
    mutating func extensionEnded(at end: UInt64?) {
        needCheck.extensionEnded(succeeded: end != nil)
        precondition(!isBusy, "an extension that does not end")
        guard let end else { return }
        precondition(end % clusterSizeBytes == 0 && end >= durableEnd, "an extension that shortens the file")
        durableEnd = end
        precondition(holds, "the file ends before the clusters that were handed out")
        chunkBytes = min(chunkBytes * 2, AllocationCursor.largestChunkBytes, max(chunkBytes, aheadLimit / 8))
    }

    /// Gives back what was extended ahead. Nothing is handed out, and no entry changed, until `trimEnded`.
    /// - Returns: the length that the file should have, or nil while an extension is under way, or when the image is clean.
    mutating func beginTrim() -> UInt64? {
        guard !isBusy, needCheck.canBeCleared else { return nil }
        needCheck.trimBegins()
        durableEnd = nextFileOffset
        precondition(isBusy && availableClusters == 0 && holds, "a trim beside which clusters can be had")
        return nextFileOffset
    }

    /// Ends what `beginTrim` began, whether the file could be shortened or not: space past `durableEnd` is not used
    /// before it has been extended again.
    /// - Parameter succeeded: the image is marked as clean, durably.
    mutating func trimEnded(succeeded: Bool) {
        precondition(
            durableEnd == nextFileOffset || isSabotaged(.reservePastDurableEnd), "clusters were handed out beside a trim")
        needCheck.trimEnded(succeeded: succeeded)
        precondition(!isBusy, "a trim that does not end")
        chunkBytes = smallestChunkBytes
    }

    /// Begins a change of the header beside what the bits of `needCheck` say. Clusters are handed out meanwhile.
    /// - Returns: false while an extension, a trim or another change is under way.
    mutating func beginHeaderChange() -> Bool {
        guard !isBusy else { return false }
        isHeaderChanging = true
        return true
    }

    mutating func headerChangeEnded() {
        precondition(isHeaderChanging && !needCheck.isBusy, "no change of the header was under way")
        isHeaderChanging = false
    }

    private func roundedUp(_ bytes: UInt64) -> UInt64 {
        (bytes + clusterSizeBytes - 1) / clusterSizeBytes * clusterSizeBytes
    }
}
