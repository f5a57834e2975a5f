import Glibc

/// A file on a disk that may lose power at any moment. The fault model:
///
/// - *Sectors.* 512 bytes are atomic: after a power cut each sector holds its last durable value or any value that
///   was written to it since, whatever happened to its neighbours. So writes are torn, and reordered, at sector boundaries.
/// - *In flight.* An operation that has not completed when the power goes may have happened, in part, or not at all.
/// - *Sync.* A sync makes durable what had completed before it was submitted, and the length; nothing is durable before
///   it completes. What completes beside it stays volatile.
/// - *Length.* A change of length that was not synced may be forgotten: the file then has one of the lengths it had since
///   the last durable one, or one in between. Sectors past the surviving length are gone.
/// - *Holes.* Punching, zeroing and shortening are writes of zeros to each sector of their range, one by one; space that a
///   file gains reads as zeros.
/// - *Failed sync.* Any subset of what it should have made durable never will be, though it still reads back, and though
///   later syncs succeed. Not the zeros of a file that was cut: they come with its length.
/// - *Errors.* A failed write may have written any part of its range. See `Fault` for which operations fail.
///
/// Not modelled, because the format cannot protect from it: sectors that decay, writes that go elsewhere, disks that
/// lie about syncs.
public final class SimulatedDisk: @unchecked Sendable {
    // SAFETY: a simulation has one thread.

    /// Sectors that have changed and are not durable; in the order in which the operations completed.
    struct Change {
        var sequence: Int
        var firstSector: Int
        var sectorCount: Int
        /// What was written; nil: zeros.
        var content: UnsafeMutableRawPointer?
        /// The file was cut.
        var isCut = false
        /// The content is another disk's.
        var isBorrowed = false

        func deallocate() {
            if !isBorrowed { content?.deallocate() }
        }
    }

    /// Certain to survive.
    private(set) var durable = SparsePages()
    private(set) var durableLength: UInt64 = 0
    /// What reads see.
    private(set) var current = SparsePages()
    public private(set) var length: UInt64 = 0
    private(set) var changes: [Change] = []
    private(set) var lengthChanges: [(sequence: Int, length: UInt64)] = []
    /// Counts the changes that have completed.
    private(set) var sequence = 0
    private let pool = PagePool()

    public init() {}

    deinit { for change in changes { change.deallocate() } }

    // MARK: - Operations, at the moment they complete

    func read(into buffer: UnsafeMutableRawPointer, byteCount: Int, at offset: UInt64) -> Int {
        guard offset < length else { return 0 }
        let count = Int(min(UInt64(byteCount), length - offset))
        current.read(into: buffer, byteCount: count, at: Int(offset))
        return count
    }

    /// Whole pages that were never written, or were cut or punched, are holes.
    func nextData(from offset: UInt64) -> Range<UInt64> {
        let pageBytes = UInt64(SparsePages.pageBytes)
        var page = Int(offset / pageBytes)
        while page < current.pageCount, current.page(page) == nil { page += 1 }
        guard page < current.pageCount, UInt64(page) * pageBytes < length else { return length..<max(length, offset) }
        let start = max(UInt64(page) * pageBytes, offset)
        while page < current.pageCount, current.page(page) != nil { page += 1 }
        return start..<max(start, min(UInt64(page) * pageBytes, length))
    }

    public func write(_ source: UnsafeRawPointer, byteCount: Int, at offset: UInt64) {
        precondition(
            offset % UInt64(SparsePages.sectorBytes) == 0 && byteCount % SparsePages.sectorBytes == 0,
            "a write of parts of sectors")
        guard byteCount > 0 else { return }
        setLengthAtLeast(offset + UInt64(byteCount))
        current.write(source, byteCount: byteCount, at: Int(offset), pool: pool)
        let content = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 8)
        content.copyMemory(from: source, byteCount: byteCount)
        append(offset, byteCount, content)
    }

    func zero(byteCount: UInt64, at offset: UInt64, isCut: Bool = false) {
        let end = min(offset + byteCount, length)
        guard end > offset else { return }
        current.zero(byteCount: Int(end - offset), at: Int(offset), pool: pool)
        append(offset, Int(end - offset), nil, isCut: isCut)
    }

    /// What reads see of the range, as far as the file reaches.
    func isZero(from offset: UInt64, byteCount: UInt64) -> Bool {
        let sectorBytes = UInt64(SparsePages.sectorBytes)
        var sector = offset / sectorBytes
        while sector * sectorBytes < min(length, offset + byteCount) {
            if let content = current.sector(Int(sector)),
                UnsafeRawBufferPointer(start: content, count: Int(sectorBytes)).contains(where: { $0 != 0 })
            {
                return false
            }
            sector += 1
        }
        return true
    }

    func setLengthAtLeast(_ newLength: UInt64) {
        if newLength > length { setLength(newLength) }
    }

    public func setLength(_ newLength: UInt64) {
        guard newLength != length else { return }
        if newLength < length { zero(byteCount: length - newLength, at: newLength, isCut: true) }
        length = newLength
        sequence += 1
        lengthChanges.append((sequence, newLength))
    }

    private func append(_ offset: UInt64, _ byteCount: Int, _ content: UnsafeMutableRawPointer?, isCut: Bool = false) {
        sequence += 1
        let sectorBytes = SparsePages.sectorBytes
        changes.append(
            Change(
                sequence: sequence, firstSector: Int(offset) / sectorBytes,
                sectorCount: (byteCount + sectorBytes - 1) / sectorBytes, content: content, isCut: isCut))
    }

    /// Makes durable what had completed when the sync was submitted.
    func makeDurable(upTo covered: Int) {
        var count = 0
        while count < changes.count, changes[count].sequence <= covered {
            let change = changes[count]
            let offset = change.firstSector * SparsePages.sectorBytes
            let byteCount = change.sectorCount * SparsePages.sectorBytes
            if let content = change.content {
                durable.write(content, byteCount: byteCount, at: offset, pool: pool)
                change.deallocate()
            } else {
                durable.zero(byteCount: byteCount, at: offset, pool: pool)
            }
            count += 1
        }
        changes.removeFirst(count)
        while let first = lengthChanges.first, first.sequence <= covered {
            durableLength = first.length
            lengthChanges.removeFirst()
        }
    }

    public func makeAllDurable() { makeDurable(upTo: sequence) }

    /// A failed sync: some of what is volatile will never be durable.
    func loseSome(_ random: inout SeededRandom) {
        changes.removeAll { change in
            guard !change.isCut, random.chance(1, in: 2) else { return false }
            change.deallocate()
            return true
        }
    }

    // MARK: - Survivors

    /// Makes this the disk that `other` is after a power cut, up to `applySurvivor` and `finishSurvivor`: only what is
    /// durable. Takes back everything this disk held.
    func beginSurvivor(of other: SimulatedDisk, length: UInt64) {
        giveBackAll()
        durable.share(other.durable)
        durableLength = length
    }

    private func giveBackAll() {
        for change in changes { change.deallocate() }
        changes.removeAll(keepingCapacity: true)
        lengthChanges.removeAll(keepingCapacity: true)
        pool.reset()
    }

    @inline(__always)
    func applySurvivor(sector: Int, content: UnsafeRawPointer?) {
        let offset = sector * SparsePages.sectorBytes
        if let content {
            durable.write(content, byteCount: SparsePages.sectorBytes, at: offset, pool: pool)
        } else {
            durable.zero(byteCount: SparsePages.sectorBytes, at: offset, pool: pool)
        }
    }

    func finishSurvivor() {
        let end = Int(durableLength)
        durable.zero(byteCount: max(durable.pageCount * SparsePages.pageBytes - end, 0), at: end, pool: pool)
        durable.disown()
        current.share(durable)
        length = durableLength
    }

    // MARK: - Leftovers of a killed process

    /// Makes this the disk that `other` is when its process is killed and no operation is in flight: nothing is lost,
    /// and what was volatile still is. `other` must stay as it is while this disk is used.
    func beginLeftover(of other: SimulatedDisk) {
        giveBackAll()
        durable.share(other.durable)
        current.share(other.current)
        durableLength = other.durableLength
        length = other.length
        sequence = other.sequence
        lengthChanges.append(contentsOf: other.lengthChanges)
        for var change in other.changes {
            change.isBorrowed = true
            changes.append(change)
        }
    }

    /// An independent copy, with what is volatile.
    func clone() -> SimulatedDisk {
        let other = SimulatedDisk()
        other.durable.copy(durable, pool: other.pool)
        other.current.copy(current, pool: other.pool)
        other.durableLength = durableLength
        other.length = length
        other.sequence = sequence
        other.lengthChanges = lengthChanges
        other.changes = changes.map { change in
            var copy = change
            copy.isBorrowed = false
            if let content = change.content {
                let byteCount = change.sectorCount * SparsePages.sectorBytes
                let own = UnsafeMutableRawPointer.allocate(byteCount: byteCount, alignment: 8)
                own.copyMemory(from: content, byteCount: byteCount)
                copy.content = own
            }
            return copy
        }
        return other
    }

    /// The pages that are not all zeros, with their file offsets.
    public func forEachPage(_ body: (UInt64, UnsafeRawBufferPointer) throws -> Void) rethrows {
        for index in 0..<current.pageCount {
            guard let page = current.page(index) else { continue }
            let offset = UInt64(index * SparsePages.pageBytes)
            if offset < length { try body(offset, UnsafeRawBufferPointer(start: page, count: SparsePages.pageBytes)) }
        }
    }

    /// An independent copy of what is visible, all of it durable.
    public func copy() -> SimulatedDisk {
        let other = SimulatedDisk()
        other.current.copy(current, pool: other.pool)
        other.current.disown()
        other.durable.share(other.current)
        other.length = length
        other.durableLength = length
        return other
    }
}
