import Glibc
import QEDEngine
import QEDFormat
import SystemPackage

/// Reads the same pieces of two disks, several at a time, and compares each when both are there.
///
/// Pieces are small and the buffer that was used last is used next: what comes out of the page cache is compared while it is
/// in the processor's cache, and only what a disk makes wait for takes more buffers.
final class PairedReading {
    private let disks: [Disk]
    private let buffers: PageBuffer
    private var slots: [Slot]
    private var freeSlots: [Int]
    /// Requests under way, for each disk.
    private var reading = [0, 0]
    private var failure: ImageToolError?
    /// Bytes of pieces that were started since the disks' loops last had a turn.
    private var startedBytes = 0
    /// The first sector that differs, of the pieces that have been compared.
    private(set) var firstDifference: UInt64?

    private struct Slot {
        var start: UInt64 = 0
        var byteCount = 0
        /// Which disks have data there; the others have zeros.
        var hasData = [false, false]
        var pending = 0
    }

    private static let pieceBytes = 256 << 10

    init(_ first: Disk, _ second: Disk) {
        disks = [first, second]
        let depth = min(first.depth, second.depth)
        buffers = PageBuffer(byteCount: 2 * depth * PairedReading.pieceBytes)
        slots = Array(repeating: Slot(), count: depth)
        freeSlots = Array((0..<depth).reversed())
    }

    /// Compares a range, which goes on when this returns. Ranges come in order.
    /// - Throws: the first failed read, of earlier ranges too.
    func compare(_ range: Range<UInt64>, firstHasData: Bool, secondHasData: Bool) throws(ImageToolError) {
        guard firstHasData || secondHasData else { return }
        var position = range.lowerBound
        while position < range.upperBound, firstDifference == nil {
            let end = min(position + UInt64(PairedReading.pieceBytes), range.upperBound)
            while freeSlots.isEmpty { step(waits: true) }
            guard failure == nil, let slot = freeSlots.popLast() else { break }
            start(slot, position..<end, hasData: [firstHasData, secondHasData])
            position = end
            if startedBytes >= PairedReading.pieceBytes { step(waits: false) }
        }
        if let failure { throw failure }
    }

    /// Waits for all that is under way.
    func finish() throws(ImageToolError) {
        drain()
        if let failure { throw failure }
    }

    func drain() {
        while reading[0] + reading[1] > 0 { step(waits: true) }
    }

    private func address(_ slot: Int, _ disk: Int) -> UnsafeMutableRawPointer {
        buffers.address + (2 * slot + disk) * PairedReading.pieceBytes
    }

    private func start(_ slot: Int, _ range: Range<UInt64>, hasData: [Bool]) {
        slots[slot] = Slot(start: range.lowerBound, byteCount: range.count, hasData: hasData)
        for disk in 0...1 where hasData[disk] {
            reading[disk] += 1
            slots[slot].pending += 1
            disks[disk].start(
                slot,
                BlockRequest(
                    .read, deviceOffset: range.lowerBound, byteCount: UInt64(range.count),
                    buffer: address(slot, disk)))
        }
        startedBytes += range.count
    }

    /// Handles what both disks have read, waiting for one of them if nothing is there.
    private func step(waits: Bool) {
        startedBytes = 0
        for disk in disks { disk.turn(waits: false) }
        if reap() || !waits { return }
        if let disk = reading.firstIndex(where: { $0 > 0 }) { disks[disk].turn(waits: true) }
        _ = reap()
    }

    private func reap() -> Bool {
        var hasAny = false
        for disk in 0...1 {
            while let (slot, result) = disks[disk].nextFinished() {
                hasAny = true
                reading[disk] -= 1
                slots[slot].pending -= 1
                if result < 0 && failure == nil {
                    failure = .request(
                        path: disks[disk].path, "read", deviceOffset: slots[slot].start, Errno(rawValue: -result))
                }
                guard slots[slot].pending == 0 else { continue }
                if failure == nil { judge(slot) }
                freeSlots.append(slot)
            }
        }
        return hasAny
    }

    private func judge(_ slot: Int) {
        let count = slots[slot].byteCount
        let sector = Int(QEDLimits.sectorSizeBytes)
        let difference: Int?
        if slots[slot].hasData == [true, true] {
            let (one, two) = (address(slot, 0), address(slot, 1))
            difference =
                memcmp(one, two, count) == 0
                ? nil
                : stride(from: 0, to: count, by: sector).first {
                    memcmp(one + $0, two + $0, min(sector, count - $0)) != 0
                }
        } else {
            let bytes = address(slot, slots[slot].hasData[0] ? 0 : 1)
            difference =
                Zeros.fill(bytes, count: count) ? nil : Zeros.firstOther(bytes, count: count, blockBytes: sector)
        }
        guard let difference else { return }
        let deviceOffset = slots[slot].start + UInt64(difference)
        firstDifference = min(firstDifference ?? deviceOffset, deviceOffset)
    }
}
