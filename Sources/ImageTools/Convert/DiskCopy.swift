import QEDEngine
import QEDFormat
import SystemPackage

/// Copies what one disk has to another, many requests at once, and leaves zeros out.
///
/// A buffer goes from a read of the source through a search for zeros to the writes of the target; each is a slot of
/// both disks.
final class DiskCopy {
    enum Holes {
        /// The target reads as zeros where nothing is written: it is new.
        case areThere
        /// Zeros must be written.
        case areMade
    }

    private let source: Disk
    private let target: Disk
    private let holes: Holes
    /// The unit of the search for zeros: what the target allocates at once.
    private let blockBytes: Int
    private let depth: Int
    private let buffers: PageBuffer
    private var slots: [Slot]
    private var freeSlots: [Int]
    private var reading = 0
    private var writing = 0
    private var failure: ImageToolError?
    /// Bytes of reads that were started since the disks' loops last had a turn.
    private var startedBytes = 0

    private static let turnBytes = 256 << 10

    private struct Slot {
        var start: UInt64 = 0
        var byteCount = 0
        /// Parts of the buffer that are still to be written, the next one last.
        var parts: [Range<Int>] = []
        /// Where zeros are made, those parts are zeros.
        var zeros: [Range<Int>] = []
    }

    init(from source: Disk, to target: Disk, holes: Holes) {
        self.source = source
        self.target = target
        self.holes = holes
        let cluster = Int(target.geometry?.clusterSizeBytes ?? 4096)
        blockBytes = min(cluster, Disk.largestRequestBytes)
        depth = min(source.depth, target.depth)
        buffers = PageBuffer(byteCount: depth * Disk.largestRequestBytes)
        slots = Array(repeating: Slot(), count: depth)
        freeSlots = Array((0..<depth).reversed())
    }

    /// Copies the parts of `range` that `wanted` picks; those it does not pick stay as they are in the target.
    ///
    /// A target that takes whole blocks only gets those that lie partly in data as data, and the others as zeros; nothing
    /// may be left out then, and the range must consist of whole blocks.
    func run(
        _ range: Range<UInt64>, map: DiskMap, progress: (@Sendable (Double) -> Void)?,
        wanted: (DiskExtent) -> Bool = { _ in true }
    ) throws(ImageToolError) {
        let unit = target.offsetAlignmentBytes
        precondition(range.lowerBound % unit == 0 && range.upperBound % unit == 0, "blocks that are not whole")
        var handledEnd = range.lowerBound
        var position = range.lowerBound
        while position < range.upperBound && failure == nil {
            let extent = try extent(at: position, limit: range.upperBound, map)
            position = extent.end
            guard wanted(extent) else {
                handledEnd = position
                continue
            }
            let end = (extent.kind == .data ? extent.end + unit - 1 : extent.end) / unit * unit
            guard handledEnd < end else { continue }
            if extent.kind == .data {
                copy(handledEnd..<end)
            } else if holes == .areMade {
                makeZeros(handledEnd..<end)
            }
            handledEnd = end
            position = max(position, end)
            progress?(Double(position - range.lowerBound) / Double(range.count))
        }
        while reading + writing > 0 { step(waits: true) }
        if let failure { throw failure }
        progress?(1)
    }

    private func extent(at position: UInt64, limit: UInt64, _ map: DiskMap) throws(ImageToolError) -> DiskExtent {
        do { return try map.extent(at: position, limit: limit) } catch {
            // No buffer may be freed while a request is under way.
            while reading + writing > 0 { step(waits: true) }
            throw error
        }
    }

    private func copy(_ range: Range<UInt64>) {
        var position = range.lowerBound
        while position < range.upperBound, failure == nil {
            let unit = UInt64(Disk.largestRequestBytes)
            let end = min((position / unit + 1) * unit, range.upperBound)
            let slot = takeSlot()
            slots[slot] = Slot(start: position, byteCount: Int(end - position))
            reading += 1
            source.start(
                slot,
                BlockRequest(.read, deviceOffset: position, byteCount: end - position, buffer: address(slot)))
            position = end
            startedBytes += slots[slot].byteCount
            // The target's disk has work as soon as there is any.
            if startedBytes >= DiskCopy.turnBytes { step(waits: false) }
        }
    }

    private func makeZeros(_ range: Range<UInt64>) {
        let slot = takeSlot()
        slots[slot] = Slot(start: range.lowerBound)
        writing += 1
        target.start(
            slot, BlockRequest(.writeZeroes, deviceOffset: range.lowerBound, byteCount: UInt64(range.count)))
    }

    private func address(_ slot: Int) -> UnsafeMutableRawPointer {
        buffers.address + slot * Disk.largestRequestBytes
    }

    private func takeSlot() -> Int {
        while true {
            if let slot = freeSlots.popLast() { return slot }
            step(waits: true)
        }
    }

    /// Handles what both disks have finished, waiting for one of them if nothing has.
    private func step(waits: Bool) {
        startedBytes = 0
        source.turn(waits: false)
        target.turn(waits: false)
        if reap() || !waits { return }
        if writing > 0 { target.turn(waits: true) } else if reading > 0 { source.turn(waits: true) }
        _ = reap()
    }

    private func reap() -> Bool {
        var hasAny = false
        while let (slot, result) = source.nextFinished() {
            hasAny = true
            reading -= 1
            if result < 0 { fail(source, "read", slot, result) }
            if failure == nil { queueWrites(slot) }
            writeNext(slot)
        }
        while let (slot, result) = target.nextFinished() {
            hasAny = true
            writing -= 1
            if result < 0 { fail(target, "write", slot, result) }
            writeNext(slot)
        }
        return hasAny
    }

    private func queueWrites(_ slot: Int) {
        let byteCount = slots[slot].byteCount
        // Blocks are those of the disk, not of the buffer: the first may be short.
        let head = min(byteCount, (blockBytes - Int(slots[slot].start % UInt64(blockBytes))) % blockBytes)
        var parts = head > 0 && !Zeros.fill(address(slot), count: head) ? [0..<head] : []
        for part in Zeros.others(address(slot) + head, count: byteCount - head, blockBytes: blockBytes) {
            parts.append((part.lowerBound + head)..<(part.upperBound + head))
        }
        slots[slot].parts = parts.reversed()
        guard holes == .areMade else { return }
        var position = 0
        for part in parts {
            if position < part.lowerBound { slots[slot].zeros.append(position..<part.lowerBound) }
            position = part.upperBound
        }
        if position < byteCount { slots[slot].zeros.append(position..<byteCount) }
    }

    private func writeNext(_ slot: Int) {
        let start = slots[slot].start
        if failure == nil, let part = slots[slot].parts.popLast() {
            writing += 1
            target.start(
                slot,
                BlockRequest(
                    .write, deviceOffset: start + UInt64(part.lowerBound), byteCount: UInt64(part.count),
                    buffer: address(slot) + part.lowerBound))
        } else if failure == nil, let part = slots[slot].zeros.popLast() {
            writing += 1
            target.start(
                slot,
                BlockRequest(.writeZeroes, deviceOffset: start + UInt64(part.lowerBound), byteCount: UInt64(part.count))
            )
        } else {
            freeSlots.append(slot)
        }
    }

    private func fail(_ disk: Disk, _ operation: String, _ slot: Int, _ result: Int32) {
        guard failure == nil else { return }
        failure = .request(path: disk.path, operation, deviceOffset: slots[slot].start, Errno(rawValue: -result))
    }
}
