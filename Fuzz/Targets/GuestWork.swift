import FuzzImages
import QEDEngine
import QEDFormat
import SystemPackage

/// What a guest does to its disk, as an input describes it, and what the disk must hold then.
struct GuestWork {
    /// What a sector may hold.
    private enum Content: Equatable {
        case base, zeros
        case tag(UInt64)
    }

    private let open: OpenImage
    private let base: ReferenceChain
    private let size: UInt64
    private let clusterSize: UInt64
    private let places: [UInt64]
    /// What may be in the sectors that were touched; all others are as they were.
    private var expected: [UInt64: [Content]] = [:]
    private var touched: [Range<UInt64>] = []
    /// The middles of long ranges of sectors, which were zeroed and are not remembered one by one.
    private var zeroedMiddles: [Range<UInt64>] = []
    private var batch: [(request: BlockRequest, tag: UInt64)] = []
    private var time: UInt64 = 1
    private var nextTag: UInt64 = 1
    /// The disk was full, or the file could not be longer.
    private(set) var wasRefusedSpace = false
    /// Something failed that may: beneath a cluster lies one that cannot be read, or there was no space.
    private(set) var isExcused = false

    init(open: OpenImage, base: ReferenceChain) {
        self.open = open
        self.base = base
        size = base.sizeBytes
        clusterSize = open.image.geometry.clusterSizeBytes
        places = OpenTarget.places(base, limit: 64)
        // Old content is looked at again in the end.
        touched = places.map { $0..<min($0 + 512, base.sizeBytes) }
    }

    mutating func perform(_ reader: inout ByteReader) {
        guard size > 0 else { return }
        for _ in 0..<64 where !reader.isAtEnd {
            let operation = reader.byte()
            switch operation % 8 {
            case 0, 1, 2: add(.write, place(&reader, largest: UInt64(OpenImage.largestRequestBytes)), operation)
            case 3: add(.read, place(&reader, largest: UInt64(OpenImage.largestRequestBytes)), operation)
            case 4: add(.writeZeroes, place(&reader, largest: 1 << 32), operation)
            case 5: add(.discard, place(&reader, largest: 1 << 32), operation)
            case 6:
                runBatch()
                require(open.perform([BlockRequest(.flush)]) == [0] || isExcused, "a flush fails")
            default:
                runBatch()
                time += UInt64(operation >> 3) * 400
                open.tick(milliseconds: time)
            }
        }
        runBatch()
    }

    /// A range of whole sectors of the device.
    private func place(_ reader: inout ByteReader, largest: UInt64) -> Range<UInt64> {
        let choice = reader.byte()
        let start: UInt64 =
            switch choice {
            case 0..<0x60: UInt64(choice) * clusterSize
            case 0x60..<0xc0: places.isEmpty ? 0 : places[Int(choice) % places.count]
            case 0xc0: size - 512
            case 0xc1: size & ~(clusterSize - 1)
            case 0xc2: open.image.geometry.bytesPerL2Table &- 512
            case 0xc3: open.image.geometry.bytesPerL2Page &- 512
            default: reader.half() * clusterSize
            }
        let shift = reader.byte()
        let sectorsPerCluster = clusterSize / 512
        let offset = min(start, size - 512) + (shift < 0x80 ? 0 : UInt64(shift & 0x7f) % sectorsPerCluster * 512)
        let length = reader.byte()
        let byteCount: UInt64 =
            switch length {
            case 0..<0x40: UInt64(length) * 512 + 512
            case 0x40..<0x80: UInt64(length & 7) * clusterSize + clusterSize
            case 0x80..<0xf0: UInt64(length & 0x7f) * 4096
            default: 1 << UInt64(20 + length % 16)
            }
        let position = min(offset, size - 512)
        return position..<(position + min(byteCount, size - position, largest))
    }

    private mutating func add(_ operation: BlockOperation, _ range: Range<UInt64>, _ flags: UInt8) {
        guard !range.isEmpty else { return }
        // Requests side by side touch different sectors, or nobody could say what comes of them.
        let overlaps = batch.contains {
            $0.request.deviceOffset < range.upperBound && range.lowerBound < $0.request.deviceOffset + $0.request.byteCount
        }
        if overlaps || batch.count == OpenImage.depth { runBatch() }
        var buffer: UnsafeMutableRawPointer?
        let tag = nextTag
        if operation == .write || operation == .read {
            let byteCount = Int(range.count)
            buffer = .allocate(byteCount: byteCount, alignment: 4096)
            if operation == .write {
                nextTag += UInt64(byteCount / 512)
                for sector in 0..<(byteCount / 512) {
                    let bytes = ImageRecipe.tagged(GuestWork.content(tag + UInt64(sector)), sectors: 1)
                    buffer?.advanced(by: sector * 512).copyMemory(from: bytes, byteCount: 512)
                }
            }
        }
        batch.append(
            (
                BlockRequest(
                    operation, deviceOffset: range.lowerBound, byteCount: UInt64(range.count), buffer: buffer,
                    forcesUnitAccess: operation == .write && flags & 0x40 != 0,
                    keepsSpace: operation == .writeZeroes && flags & 0x40 != 0), tag
            ))
        if flags & 0x80 != 0 { runBatch() }
    }

    private mutating func runBatch() {
        guard !batch.isEmpty else { return }
        let results = open.perform(batch.map(\.request))
        for ((request, tag), result) in zip(batch, results) {
            let range = request.deviceOffset..<(request.deviceOffset + request.byteCount)
            if result < 0 { checkFailure(request, range, Errno(rawValue: -result)) }
            switch request.operation {
            case .read:
                if result == 0, let buffer = request.buffer {
                    compare(range, UnsafeRawBufferPointer(start: buffer, count: Int(request.byteCount)))
                }
            case .write: note(range, failed: result < 0) { .tag(tag + $0) }
            case .writeZeroes: note(range, failed: result < 0) { _ in .zeros }
            case .discard: note(range, failed: true) { _ in .zeros }
            case .flush: break
            }
            request.buffer?.deallocate()
        }
        batch = []
    }

    /// Longer ranges are remembered at their ends.
    private static let notedSectors: UInt64 = 512

    private mutating func note(_ range: Range<UInt64>, failed: Bool, _ content: (UInt64) -> Content) {
        let sectors = (range.lowerBound / 512)..<(range.upperBound / 512)
        func set(_ sector: UInt64) {
            let new = content(sector - sectors.lowerBound)
            // A request that failed, and a discard, may have done its work or not.
            let old = failed ? contents(of: sector) : []
            expected[sector] = old.contains(new) ? old : old + [new]
        }
        if UInt64(sectors.count) <= 2 * GuestWork.notedSectors {
            for sector in sectors { set(sector) }
            touched.append(range)
            return
        }
        let head = sectors.prefix(Int(GuestWork.notedSectors))
        let tail = sectors.suffix(Int(GuestWork.notedSectors))
        for sector in head { set(sector) }
        for sector in tail { set(sector) }
        for sector in Array(expected.keys) where sector >= head.endIndex && sector < tail.startIndex { set(sector) }
        // What lies between and was not touched before is not looked at again.
        touched = touched.filter {
            $0.upperBound <= head.endIndex * 512 || $0.lowerBound >= tail.startIndex * 512
                || sectors.lowerBound * 512 > $0.lowerBound || sectors.upperBound * 512 < $0.upperBound
                || ($0.lowerBound / 512..<$0.upperBound / 512).allSatisfy { expected[$0] != nil }
        }
        zeroedMiddles.append(head.endIndex..<tail.startIndex)
        touched.append(head.startIndex * 512..<head.endIndex * 512)
        touched.append(tail.startIndex * 512..<tail.endIndex * 512)
    }

    private static func content(_ tag: UInt64) -> UInt64 { tag &+ 0x7a9_0000_0000 }

    private mutating func checkFailure(_ request: BlockRequest, _ range: Range<UInt64>, _ errno: Errno) {
        if errno == .noSpace || errno == .fileTooLarge {
            wasRefusedSpace = true
            isExcused = true
            return
        }
        // A part of a cluster whose rest cannot be read.
        let mask = clusterSize - 1
        let first = (range.lowerBound & ~mask) / 512
        let last = min((range.upperBound + mask) & ~mask, size) / 512
        let isUnreadable = last - first > 4096 || (first..<last).contains { base.sector($0) == nil }
        require(isUnreadable, "\(request.operation) of \(range) fails: \(errno)")
        isExcused = true
    }

    private func contents(of sector: UInt64) -> [Content] {
        expected[sector] ?? (zeroedMiddles.contains { $0.contains(sector) } ? [.base, .zeros] : [.base])
    }

    /// - Returns: nil where the sector cannot be read, as far as anybody knows.
    private func possible(_ sector: UInt64) -> [[UInt8]]? {
        var all: [[UInt8]] = []
        for content in contents(of: sector) {
            switch content {
            case .zeros: all.append([UInt8](repeating: 0, count: 512))
            case .tag(let tag): all.append(ImageRecipe.tagged(GuestWork.content(tag), sectors: 1))
            case .base:
                guard let bytes = base.sector(sector) else { return nil }
                all.append(bytes)
            }
        }
        return all
    }

    private func compare(_ range: Range<UInt64>, _ bytes: UnsafeRawBufferPointer) {
        for sector in (range.lowerBound / 512)..<(range.upperBound / 512) {
            guard let possible = possible(sector) else { continue }
            let start = Int(sector * 512 - range.lowerBound)
            require(
                possible.contains { isSame(UnsafeRawBufferPointer(rebasing: bytes[start..<(start + 512)]), $0) },
                "device offset \(sector * 512) holds something else")
        }
    }

    /// Reads through the engine what was touched, and some of what was not.
    mutating func readBack() {
        for range in touched {
            var position = range.lowerBound
            while position < range.upperBound {
                let end = min(position + UInt64(OpenImage.largestRequestBytes), range.upperBound)
                switch open.read(position, byteCount: Int(end - position)) {
                case .success(let bytes): bytes.withUnsafeBytes { compare(position..<end, $0) }
                case .failure(let errno):
                    let isUnreadable = (position / 512..<end / 512).contains { possible($0) == nil }
                    require(isUnreadable, "device offsets \(position)..<\(end) are not read back: \(errno)")
                }
                position = end
            }
        }
    }

    /// Compares the file as it is now, with nothing of the engine between.
    func compare(with after: ReferenceChain) {
        for range in touched {
            for sector in (range.lowerBound / 512)..<(range.upperBound / 512) {
                guard let possible = possible(sector) else { continue }
                guard let bytes = after.sector(sector) else { fail("device offset \(sector * 512) cannot be read any more") }
                let isExpected = bytes.withUnsafeBytes { bytes in possible.contains { isSame(bytes, $0) } }
                require(isExpected, "device offset \(sector * 512) holds something else after closing")
            }
        }
    }
}
