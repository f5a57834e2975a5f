/// Which slots of one size are in memory, who has them and who waits for one: the state of `RequestMemory`, without its memory.
///
///     absent ──▶ coming ──▶ free ◀──▶ lent
///       ▲                    │
///       └────────────────────┘   when nobody has needed it for a while
///
/// As many as the reserve are there from the beginning, and as many always stay. Whoever has a slot gives it back without
/// waiting for another one; so whoever waits gets one in the end, even if no further slot ever comes, and in the order of
/// arrival.
struct BufferPool {
    enum SlotState: UInt8 {
        /// Address space only.
        case absent
        /// On its way into memory; nobody may touch it, or wait for it alone.
        case coming
        case free
        case lent
    }

    /// What a request gets.
    enum Taking: Equatable {
        case slot(Int)
        /// It waits. The slot should be brought into memory meanwhile, if there is one.
        case waits(bringing: Int?)
    }

    /// Slots that nobody has needed for as many ticks leave.
    static let idleTicks = 5

    private var states: [SlotState]
    /// The slot that was given back last is the first to be lent: it is the most likely to be in the processor's caches.
    private var free: [Int]
    private var absent: [Int]
    /// Requests, the first one first.
    private var waiting: [Int] = []
    private var comingCount = 0
    private let reserve: Int
    /// Since the last slots left, or could have: how many were free at least.
    private var leastFree: Int
    private var ticks = 0

    init(slotCount: Int, reserve: Int) {
        precondition(reserve > 0 && reserve <= slotCount, "a queue without memory")
        self.reserve = reserve
        states = Array(repeating: .free, count: reserve) + Array(repeating: .absent, count: slotCount - reserve)
        // The first ones are used first, and come first.
        free = (0..<reserve).reversed()
        absent = (reserve..<slotCount).reversed()
        free.reserveCapacity(slotCount)
        absent.reserveCapacity(slotCount)
        waiting.reserveCapacity(slotCount)
        leastFree = reserve
    }

    func state(of slot: Int) -> SlotState { states[slot] }

    var waitingCount: Int { waiting.count }
    var isBringing: Bool { comingCount > 0 }
    /// Of the slots in memory, or on their way there.
    var count: Int { states.count - absent.count }
    /// Whether there is more than the reserve, which `tick` will see leave.
    var isGrown: Bool { count > reserve }

    /// - Parameter request: whom the slot is for.
    @inline(__always)
    mutating func take(for request: Int) -> Taking {
        guard let slot = free.popLast() else { return wait(request) }
        precondition(states[slot] == .free, "a slot is lent twice")
        states[slot] = .lent
        if free.count < leastFree { leastFree = free.count }
        return .slot(slot)
    }

    private mutating func wait(_ request: Int) -> Taking {
        leastFree = 0
        waiting.append(request)
        // Those on their way are for those who waited before.
        guard waiting.count > comingCount, let slot = absent.popLast() else { return .waits(bringing: nil) }
        states[slot] = .coming
        comingCount += 1
        return .waits(bringing: slot)
    }

    /// - Returns: the request that has the slot from now on, if one has waited for it.
    @inline(__always)
    mutating func giveBack(_ slot: Int) -> Int? {
        precondition(states[slot] == .lent, "a slot is given back that nobody has")
        if !waiting.isEmpty { return waiting.removeFirst() }
        states[slot] = .free
        free.append(slot)
        return nil
    }

    /// A slot is in memory.
    /// - Returns: as `giveBack`.
    mutating func arrived(_ slot: Int) -> Int? {
        precondition(states[slot] == .coming, "a slot arrives that was not sent for")
        comingCount -= 1
        states[slot] = .lent
        return giveBack(slot)
    }

    /// Called once a second while `isGrown`.
    /// - Returns: the slots that leave the memory. One of them may be sent for at once: it must leave before it comes.
    mutating func tick() -> [Int] {
        ticks += 1
        guard ticks == Self.idleTicks else { return [] }
        // Not those on their way: somebody has asked for them.
        let leaving = Array(free.prefix(max(0, min(leastFree, count - comingCount - reserve))))
        free.removeFirst(leaving.count)
        for slot in leaving { states[slot] = .absent }
        absent += leaving
        ticks = 0
        leastFree = free.count
        return leaving
    }
}
