import Synchronization

/// What a thread asked of the disk, and what it got.
struct Operation {
    enum Kind: CaseIterable {
        case read, write
        /// Zeros that keep their space, and zeros that give it back.
        case zero, punch
        case discard
        case flush
    }

    var kind: Kind
    /// Within the range of the round, in sectors of 512 bytes.
    var sectors: Range<Int>
    /// Its own number, from 1.
    var request: Int
    /// When it began and ended, in events.
    var start: Int
    var end = 0
    /// Of a read: what each sector held.
    var values: [UInt64] = []
    /// Of a read: the parts of sectors that held more than one value.
    var torn: [Int: Set<UInt64>] = [:]
    /// The disk's server may have been killed while it was under way: the next one may do it again, until it is answered.
    var mayRepeat = false
    /// It failed: a positive errno.
    var failure: Int32 = 0

    /// What a write leaves in a sector: no other operation, and no other sector, has the same.
    func value(ofSector sector: Int) -> UInt64 { kind == .write ? UInt64(request) << 16 | UInt64(sector) : 0 }

    var changes: Bool { kind != .read && kind != .flush }
}

/// Orders the beginnings and ends of operations on all threads: a tick before another in time is a smaller number.
final class EventClock: Sendable {
    private let last = Atomic<Int>(0)

    func tick() -> Int { last.wrappingAdd(1, ordering: .sequentiallyConsistent).newValue }
}

/// The times in which the disk's server may be killed: from SIGUSR1 to SIGUSR2.
enum KillWindow {
    /// Odd while it is open.
    private static let changes = Atomic<Int>(0)

    static var state: Int { changes.load(ordering: .sequentiallyConsistent) }

    static func open() { if state & 1 == 0 { changes.add(1, ordering: .sequentiallyConsistent) } }
    static func close() { if state & 1 == 1 { changes.add(1, ordering: .sequentiallyConsistent) } }

    /// Whether it was open at some time since `earlier`.
    static func wasOpen(since earlier: Int) -> Bool { earlier & 1 == 1 || state != earlier }
}
