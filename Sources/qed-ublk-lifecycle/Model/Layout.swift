/// Where on each device the sectors are that are written and judged: small patches, each over the boundary of two clusters,
/// behind a room for a file system.
enum Layout {
    static let sizeMiB = 64
    static let fileSystemMiB = 12
    static let patchSectors = 32
    static let patchCount = 32
    static let sectorCount = patchSectors * patchCount

    /// The byte of the device at which a patch begins.
    static func offset(ofPatch patch: Int) -> Int { (16 << 20) + patch << 20 + (56 << 10) }

    /// The partition that is made to be held open, in bytes.
    static let partition = 1 << 20..<2 << 20
}

/// The values that are written. Each write has its own in every sector.
struct Values: Equatable {
    let seed: UInt64
    private(set) var sequence: UInt64 = 0

    init(seed: UInt64) { self.seed = seed }

    mutating func next(_ sectors: Range<Int>) -> [UInt64] {
        sequence += 1
        return sectors.map { (seed & 0xffff) << 48 | sequence << 16 | UInt64($0) }
    }
}
