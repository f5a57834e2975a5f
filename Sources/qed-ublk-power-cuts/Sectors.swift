/// Where the blocks lie on the disk, and what its sectors can hold.
///
/// A block is 4 KiB, at every 32 KiB, so that two share a cluster of the usual size. The first half of the disk lies over
/// data of a backing file, which counts its sectors; the second half has nothing below.
enum Layout {
    static let blocks = 768
    static let strideSectors = 64
    static let blockSectors = 8
    static let sectors = blocks * strideSectors
    static let baseSectors = sectors / 2
    static let sectorBytes = 512
    static let blockBytes = blockSectors * sectorBytes
    static let sizeBytes = sectors * sectorBytes

    /// The block that a sector of the disk belongs to; nil between them.
    static func block(ofSector sector: Int) -> Int? {
        sector % strideSectors < blockSectors ? sector / strideSectors : nil
    }
}

/// What a sector holds. In words that a person can read on the disk: "q12,345,6" or "base78".
enum SectorContent: Equatable {
    case zeros
    /// Of the backing file.
    case base(sector: Int)
    /// Of the write of this number to a block: the first sector of a block is its sector 0.
    case written(number: Int, block: Int, sector: Int)
    case unknown

    /// What a sector of the disk holds before anything is written to it.
    static func initial(_ sector: Int) -> SectorContent { sector < Layout.baseSectors ? .base(sector: sector) : .zeros }

    private var text: String {
        switch self {
        case .zeros, .unknown: ""
        case .base(let sector): "base\(sector)"
        case .written(let number, let block, let sector): "q\(number),\(block),\(sector)"
        }
    }

    /// The sector, to the byte.
    var bytes: [UInt8] {
        if self == .zeros { return [UInt8](repeating: 0, count: Layout.sectorBytes) }
        let text = Array(text.utf8)
        let padding = [UInt8](repeating: UInt8(ascii: " "), count: Layout.sectorBytes - 1 - text.count)
        return text + padding + [UInt8(ascii: "\n")]
    }

    /// What these bytes are; `unknown` where a single one is another.
    init(_ bytes: some Collection<UInt8>) {
        self = .unknown
        guard bytes.count == Layout.sectorBytes, let first = bytes.first else { return }
        if first == 0 {
            if bytes.allSatisfy({ $0 == 0 }) { self = .zeros }
            return
        }
        let word = String(decoding: bytes.prefix { $0 != UInt8(ascii: " ") }, as: UTF8.self)
        let numbers = word.drop { !$0.isNumber }.split(separator: ",", omittingEmptySubsequences: false).map { Int($0) }
        let content: SectorContent
        switch (first, numbers.count) {
        case (UInt8(ascii: "b"), 1):
            guard let sector = numbers[0] else { return }
            content = .base(sector: sector)
        case (UInt8(ascii: "q"), 3):
            guard let number = numbers[0], let block = numbers[1], let sector = numbers[2] else { return }
            content = .written(number: number, block: block, sector: sector)
        default: return
        }
        if bytes.elementsEqual(content.bytes) { self = content }
    }
}

extension SectorContent: CustomStringConvertible {
    var description: String {
        switch self {
        case .zeros: "zeros"
        case .unknown: "what nobody has written"
        case .base, .written: text
        }
    }
}
