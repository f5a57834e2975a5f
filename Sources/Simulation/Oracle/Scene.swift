import QEDFormat

/// What a simulation plays on: the image's shape and what lies behind it.
public struct Scene: Sendable, CustomStringConvertible {
    public enum Base: String, CaseIterable, Sendable {
        case none, raw
        /// A raw file that ends within the image, in the middle of a cluster.
        case short
        /// A QED image, smaller than the device, with holes and zero clusters.
        case qed
    }

    public var clusterSizeBytes: UInt64
    public var tableSizeClusters: UInt64 = 2
    public var imageSizeBytes: UInt64
    public var base: Base

    public init(clusterSizeBytes: UInt64, tableSizeClusters: UInt64 = 2, imageSizeBytes: UInt64, base: Base) {
        self.clusterSizeBytes = clusterSizeBytes
        self.tableSizeClusters = tableSizeClusters
        self.imageSizeBytes = imageSizeBytes
        self.base = base
    }

    public var description: String {
        "\(clusterSizeBytes >> 10) KiB clusters, tables of \(tableSizeClusters), \(imageSizeBytes >> 10) KiB, base \(base)"
    }

    /// How long the backing file is: whole sectors, but not whole clusters where it is short.
    var baseBytes: UInt64 {
        switch base {
        case .none: 0
        case .raw: imageSizeBytes
        case .short: imageSizeBytes / 2 / clusterSizeBytes * clusterSizeBytes + clusterSizeBytes / 2 + 512
        case .qed: imageSizeBytes / 2 / clusterSizeBytes * clusterSizeBytes + 3 * clusterSizeBytes + 1024
        }
    }

    private static let baseMark: UInt64 = 0xba5e << 48
    private static let baseClusterBytes: UInt64 = 8192

    /// Which clusters of a QED base are data (others are holes or zeros): two of three.
    private func baseHasData(_ deviceOffset: UInt64) -> Bool { deviceOffset / Scene.baseClusterBytes % 3 != 2 }

    /// The base of a large image is sparse: data at the beginning of each 2 MiB, for as long as a history's window.
    private func baseIsSparse(at deviceOffset: UInt64) -> Bool {
        imageSizeBytes > 16 << 20 && deviceOffset % (2 << 20) >= 128 << 10
    }

    /// What a sector of the device reads as before anything is written to it.
    func initialValue(_ sector: Int) -> UInt64 {
        let deviceOffset = UInt64(sector) * 512
        guard deviceOffset < baseBytes, !baseIsSparse(at: deviceOffset) else { return 0 }
        if base == .qed && !baseHasData(deviceOffset) { return 0 }
        return Scene.baseMark | UInt64(sector)
    }

    /// A new image, durable.
    func makeDisk() throws(QEDFormatError) -> SimulatedDisk { try makeDisk(isOverlay: base != .none, rawBase: base != .qed) }

    /// An empty overlay over a QED image of the same size.
    func makeOverlay() throws(QEDFormatError) -> SimulatedDisk { try makeDisk(isOverlay: true, rawBase: false) }

    private func makeDisk(isOverlay: Bool, rawBase: Bool) throws(QEDFormatError) -> SimulatedDisk {
        let geometry = try QEDGeometry(clusterSizeBytes: clusterSizeBytes, tableSizeClusters: tableSizeClusters)
        let backing: (name: BackingFileName, isRaw: Bool)? =
            isOverlay ? (try BackingFileName(Array("base".utf8)), rawBase) : nil
        let header = try QEDHeader(newImageOfSizeBytes: imageSizeBytes, geometry: geometry, backingFile: backing)
        var bytes = [UInt8](repeating: 0, count: 512)
        bytes.replaceSubrange(0..<64, with: header.encoded())
        if isOverlay { bytes.replaceSubrange(64..<68, with: Array("base".utf8)) }
        let disk = SimulatedDisk()
        bytes.withUnsafeBytes { if let start = $0.baseAddress { disk.write(start, byteCount: 512, at: 0) } }
        disk.setLength(header.headerAreaSizeBytes + geometry.tableSizeBytes)
        disk.makeAllDurable()
        return disk
    }

    /// The files behind the image; the first is called "base" in the image's header.
    public func backingFiles() throws(QEDFormatError) -> [SimulatedDisk] { try makeBacking().map(\.disk) }

    func makeBacking() throws(QEDFormatError) -> [Machine.BackingFile] {
        switch base {
        case .none: return []
        case .raw, .short:
            let disk = SimulatedDisk()
            writeBaseSectors(on: disk) { $0 }
            disk.setLength(baseBytes)
            disk.makeAllDurable()
            return [Machine.BackingFile(disk: disk, isRaw: true)]
        case .qed:
            return [Machine.BackingFile(disk: try makeQEDBase(), isRaw: false)]
        }
    }

    /// - Parameter fileOffset: where in the file a device offset lies.
    private func writeBaseSectors(on disk: SimulatedDisk, fileOffset: (UInt64) -> UInt64) {
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: 512, alignment: 8)
        defer { buffer.deallocate() }
        for sector in 0..<Int(baseBytes / 512) {
            let value = initialValue(sector)
            if value == 0 { continue }
            SectorValue.fill(buffer, value)
            disk.write(buffer, byteCount: 512, at: fileOffset(UInt64(sector) * 512))
        }
    }

    private func makeQEDBase() throws(QEDFormatError) -> SimulatedDisk {
        let cluster = Scene.baseClusterBytes
        let geometry = try QEDGeometry(clusterSizeBytes: cluster, tableSizeClusters: 2)
        let header = try QEDHeader(newImageOfSizeBytes: baseBytes, geometry: geometry)
        let disk = SimulatedDisk()
        var bytes = [UInt8](repeating: 0, count: 512)
        bytes.replaceSubrange(0..<64, with: header.encoded())
        func write(_ bytes: [UInt8], _ offset: UInt64) {
            bytes.withUnsafeBytes { if let start = $0.baseAddress { disk.write(start, byteCount: bytes.count, at: offset) } }
        }
        write(bytes, 0)
        let tables = (baseBytes + geometry.bytesPerL2Table - 1) / geometry.bytesPerL2Table
        let firstTable = header.headerAreaSizeBytes + geometry.tableSizeBytes
        let firstCluster = firstTable + tables * geometry.tableSizeBytes
        func table(_ entries: [UInt64], _ offset: UInt64) {
            write(entries.flatMap { entry in (0..<8).map { UInt8(truncatingIfNeeded: entry >> ($0 * 8)) } }, offset)
        }
        var l1 = [UInt64](repeating: 0, count: geometry.entriesPerTable)
        for index in 0..<Int(tables) { l1[index] = firstTable + UInt64(index) * geometry.tableSizeBytes }
        table(l1, header.l1TableFileOffset)
        for index in 0..<Int(tables) {
            let entries = (0..<geometry.entriesPerTable).map { entry -> UInt64 in
                let deviceOffset = UInt64(index) * geometry.bytesPerL2Table + UInt64(entry) * cluster
                if deviceOffset >= baseBytes { return 0 }
                if baseHasData(deviceOffset) { return firstCluster + deviceOffset }
                return deviceOffset / cluster % 2
            }
            table(entries, l1[index])
        }
        writeBaseSectors(on: disk) { firstCluster + $0 }
        disk.setLength(firstCluster + (baseBytes + cluster - 1) / cluster * cluster)
        disk.makeAllDurable()
        return disk
    }
}
