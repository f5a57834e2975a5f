import QEDFormat

/// An image as the format's rules read it, one entry after the other, with nothing of the engine but the header: what the
/// engine and the tools are compared with.
package struct ReferenceImage {
    package let file: SparseFile
    package let header: QEDHeader
    private let clusterSize: UInt64
    private let entries: UInt64
    /// End of the last whole cluster; a missing part of the last sector does not count.
    package let endOfClusters: UInt64

    package enum Entry: Equatable {
        case unallocated, zero, invalid
        case allocated(UInt64)
    }

    package init(file: SparseFile, header: QEDHeader) {
        self.file = file
        self.header = header
        clusterSize = header.geometry.clusterSizeBytes
        entries = header.geometry.tableSizeBytes / 8
        endOfClusters = ((file.length + 511) & ~511) / clusterSize * clusterSize
    }

    /// - Returns: nil where the file is not an image.
    package init?(file: SparseFile) {
        let start = file.bytes(at: 0, count: Int(min(file.length, 64)))
        guard let header = try? QEDHeader(parsing: start, fileSizeBytes: file.length) else { return nil }
        self.init(file: file, header: header)
    }

    package var clusterCount: UInt64 { endOfClusters / clusterSize }

    private func judge(_ value: UInt64, sizeBytes: UInt64) -> Entry {
        guard value != 0 else { return .unallocated }
        let (end, overflow) = value.addingReportingOverflow(sizeBytes)
        guard value % clusterSize == 0, value >= header.headerSizeClusters * clusterSize, !overflow,
            end <= endOfClusters
        else { return .invalid }
        return .allocated(value)
    }

    package func l1Entry(_ index: UInt64) -> Entry {
        judge(file.word(at: header.l1TableFileOffset + index * 8), sizeBytes: entries * 8)
    }

    package func l2Entry(ofTableAt table: UInt64, _ index: UInt64) -> Entry {
        let value = file.word(at: table + index * 8)
        return value == 1 ? .zero : judge(value, sizeBytes: clusterSize)
    }

    /// What stands for a cluster of the device.
    package func entry(ofCluster cluster: UInt64) -> Entry {
        switch l1Entry(cluster / entries) {
        case .allocated(let table): l2Entry(ofTableAt: table, cluster % entries)
        case .invalid: .invalid
        default: .unallocated
        }
    }

    // MARK: - Tables

    /// The entries of a table that are not 0, in its order.
    package func forEachEntry(ofTableAt table: UInt64, _ body: (_ index: UInt64, _ value: UInt64) -> Void) {
        for page in file.pageIndexes(from: table, to: table + entries * 8) {
            let words = file.words(ofPage: page)
            for (index, value) in words.enumerated() where value != 0 {
                body((page * 4096 - table) / 8 + UInt64(index), value)
            }
        }
    }

    /// The device clusters that have an entry of any kind, in the order of the device; at most `limit`.
    package func mappedClusters(limit: Int) -> [UInt64] {
        var clusters: [UInt64] = []
        forEachEntry(ofTableAt: header.l1TableFileOffset) { l1Index, _ in
            if clusters.count >= limit { return }
            switch l1Entry(l1Index) {
            case .invalid: clusters.append(l1Index * entries)
            case .allocated(let table):
                forEachEntry(ofTableAt: table) { index, _ in
                    if clusters.count < limit { clusters.append(l1Index * entries + index) }
                }
            default: break
            }
        }
        return clusters
    }

    /// The structure's verdict, as the check's rules count it: tables in the order of the L1 table, and one that shares a
    /// cluster is not looked into.
    package struct Verdict {
        package var invalidEntries: UInt64 = 0
        package var crossLinks: UInt64 = 0
        package var allocatedClusters: UInt64 = 0
        package var leakedClusters: UInt64 = 0
        /// How often each cluster was claimed.
        package var owners: [UInt64: Int] = [:]
        package var isSound: Bool { invalidEntries == 0 && crossLinks == 0 }
    }

    package func verdict() -> Verdict {
        var verdict = Verdict()
        let headerClusters = min(header.headerSizeClusters, clusterCount)
        func claim(_ offset: UInt64, _ count: UInt64) -> UInt64 {
            var taken: UInt64 = 0
            for cluster in (offset / clusterSize)..<(offset / clusterSize + count) {
                if verdict.owners[cluster] != nil || cluster < headerClusters { taken += 1 }
                verdict.owners[cluster, default: 0] += 1
            }
            verdict.crossLinks += taken
            return taken
        }
        let tableClusters = entries * 8 / clusterSize
        _ = claim(header.l1TableFileOffset, tableClusters)
        forEachEntry(ofTableAt: header.l1TableFileOffset) { l1Index, _ in
            guard case .allocated(let table) = l1Entry(l1Index) else {
                verdict.invalidEntries += 1
                return
            }
            if claim(table, tableClusters) > 0 { return }
            forEachEntry(ofTableAt: table) { index, value in
                switch l2Entry(ofTableAt: table, index) {
                case .allocated(let offset):
                    verdict.allocatedClusters += 1
                    _ = claim(offset, 1)
                case .invalid:
                    verdict.allocatedClusters += 1
                    verdict.invalidEntries += 1
                default: break
                }
            }
        }
        verdict.leakedClusters = clusterCount - headerClusters - UInt64(verdict.owners.count)
        return verdict
    }

    /// Device clusters that nobody else can have an opinion on: their table and their data have one owner each. With where
    /// they are.
    package func soundClusters(_ verdict: Verdict, limit: Int) -> [(cluster: UInt64, fileOffset: UInt64)] {
        var sound: [(UInt64, UInt64)] = []
        let tableClusters = entries * 8 / clusterSize
        for cluster in mappedClusters(limit: limit) {
            guard case .allocated(let table) = l1Entry(cluster / entries),
                case .allocated(let offset) = l2Entry(ofTableAt: table, cluster % entries),
                verdict.owners[offset / clusterSize] == 1,
                (0..<tableClusters).allSatisfy({ verdict.owners[table / clusterSize + $0] == 1 })
            else { continue }
            sound.append((cluster, offset))
        }
        return sound
    }
}

/// A chain as the format's rules read it.
package struct ReferenceChain {
    package var images: [ReferenceImage] = []
    /// The file at the end of the chain, where it is raw.
    package var raw: SparseFile?

    /// - Returns: nil where a member is not an image.
    package init?(_ files: [SparseFile], isRaw: [Bool]) {
        for (file, isRaw) in zip(files, isRaw) {
            if isRaw {
                raw = file
            } else {
                guard let image = ReferenceImage(file: file) else { return nil }
                images.append(image)
            }
        }
    }

    package var sizeBytes: UInt64 { images[0].header.imageSizeBytes }

    /// A sector of the device; nil where an entry on its way cannot be right, or the file cannot be read there.
    package func sector(_ sector: UInt64, fromLayer first: Int = 0) -> [UInt8]? {
        let zeros = [UInt8](repeating: 0, count: 512)
        let position = sector * 512
        for image in images[first...] {
            guard position < image.header.imageSizeBytes else { return zeros }
            let clusterSize = image.header.geometry.clusterSizeBytes
            switch image.entry(ofCluster: position / clusterSize) {
            case .zero: return zeros
            case .invalid: return nil
            case .allocated(let offset):
                // A file that ends inside its last sector; or where offsets end.
                return image.file.bytes(at: offset + position % clusterSize, count: 512)
            case .unallocated: continue
            }
        }
        guard let raw, position < raw.length else { return zeros }
        return raw.bytes(at: position, count: 512)
    }
}
