import Simulation
import Testing

@testable import Ublk

struct BufferPoolTests {
    @Test func theReserveIsLentFirstAndTheLastOneBackIsTheNext() {
        var pool = BufferPool(slotCount: 4, reserve: 2)
        #expect(pool.take(for: 10) == .slot(0))
        #expect(pool.take(for: 11) == .slot(1))
        #expect(pool.giveBack(0) == nil)
        #expect(pool.giveBack(1) == nil)
        #expect(pool.take(for: 12) == .slot(1))
        #expect(pool.count == 2 && !pool.isGrown)
    }

    @Test func whoWaitsIsServedInTurnByWhateverComesFirst() {
        var pool = BufferPool(slotCount: 3, reserve: 1)
        #expect(pool.take(for: 10) == .slot(0))
        #expect(pool.take(for: 11) == .waits(bringing: 1))
        #expect(pool.take(for: 12) == .waits(bringing: 2))
        // There are no more.
        #expect(pool.take(for: 13) == .waits(bringing: nil))
        #expect(pool.giveBack(0) == 11)
        #expect(pool.arrived(2) == 12)
        #expect(pool.giveBack(0) == 13)
        #expect(pool.arrived(1) == nil)
        #expect(pool.take(for: 14) == .slot(1))
    }

    /// Each that waits has one slot sent for, and no two the same.
    @Test func noMoreIsSentForThanIsWaitedFor() {
        var pool = BufferPool(slotCount: 8, reserve: 1)
        _ = pool.take(for: 0)
        #expect(pool.take(for: 1) == .waits(bringing: 1))
        // The one that was sent for is the next one's then.
        #expect(pool.giveBack(0) == 1)
        #expect(pool.take(for: 2) == .waits(bringing: nil))
        #expect(pool.take(for: 3) == .waits(bringing: 2))
    }

    @Test func aReserveOfOneServesEverybodyWhenNothingComes() {
        var pool = BufferPool(slotCount: 4, reserve: 1)
        #expect(pool.take(for: 0) == .slot(0))
        for request in 1..<20 {
            guard case .waits = pool.take(for: request) else {
                Issue.record("a slot")
                return
            }
        }
        for request in 1..<20 { #expect(pool.giveBack(0) == request) }
        #expect(pool.giveBack(0) == nil)
        for _ in 0..<20 { #expect(pool.tick() == []) }
        // It is still on its way.
        #expect(pool.state(of: 1) == .coming && pool.isGrown)
        #expect(pool.arrived(1) == nil)
    }

    @Test func whatNobodyHasNeededForAWhileLeaves() {
        var pool = BufferPool(slotCount: 6, reserve: 2)
        for request in 0..<6 { _ = pool.take(for: request) }
        for slot in 2..<6 { _ = pool.arrived(slot) }
        for slot in 0..<6 { #expect(pool.giveBack(slot) == nil) }
        // Needed in this while.
        for _ in 0..<BufferPool.idleTicks { #expect(pool.tick() == []) }
        for _ in 1..<BufferPool.idleTicks {
            // Two at once are needed; the same two serve.
            #expect(pool.take(for: 0) == .slot(5) && pool.take(for: 1) == .slot(4))
            #expect(pool.giveBack(4) == nil && pool.giveBack(5) == nil)
            #expect(pool.tick() == [])
        }
        #expect(pool.tick() == [0, 1, 2, 3])
        #expect(pool.count == 2 && !pool.isGrown)
        #expect(pool.take(for: 0) == .slot(5) && pool.take(for: 1) == .slot(4))
        #expect(pool.take(for: 2) == .waits(bringing: 3))
    }

    /// The number of slots in memory is what has been needed at once, also under load.
    @Test func aBusyPoolKeepsWhatItNeeds() {
        var pool = BufferPool(slotCount: 8, reserve: 1)
        for request in 0..<4 { _ = pool.take(for: request) }
        for slot in 1..<4 { _ = pool.arrived(slot) }
        for _ in 0..<(3 * BufferPool.idleTicks) { #expect(pool.tick() == []) }
        #expect(pool.giveBack(3) == nil)
        for _ in 0..<(2 * BufferPool.idleTicks) { _ = pool.tick() }
        #expect(pool.count == 3 && pool.state(of: 3) == .absent)
        for slot in 0..<3 { #expect(pool.state(of: slot) == .lent) }
    }

    /// Random takes, returns, arrivals and ticks: a slot is one request's at a time and in memory, requests are served in the
    /// order of their arrival, the reserve stays, and in the end everybody has been served.
    @Test(arguments: 0..<20 as Range<UInt64>)
    func nobodyStarvesAndNoSlotIsGivenTwice(seed: UInt64) {
        var random = SeededRandom(seed: seed)
        let slotCount = Int.random(in: 1...9, using: &random)
        let reserve = Int.random(in: 1...slotCount, using: &random)
        var pool = BufferPool(slotCount: slotCount, reserve: reserve)
        var holders: [Int: Int] = [:]
        var waiting: [Int] = []
        var coming: Set<Int> = []
        var next = 0
        func serve(_ request: Int?, _ slot: Int) {
            guard let request else {
                #expect(waiting.isEmpty)
                return
            }
            #expect(waiting.first == request)
            waiting.removeFirst()
            #expect(holders.updateValue(request, forKey: slot) == nil)
        }
        for step in 0..<2000 {
            let isEnding = step > 1500
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<4 where !isEnding:
                switch pool.take(for: next) {
                case .slot(let slot):
                    #expect(waiting.isEmpty && !coming.contains(slot))
                    #expect(holders.updateValue(next, forKey: slot) == nil)
                case .waits(let bringing):
                    waiting.append(next)
                    if let slot = bringing { #expect(coming.insert(slot).inserted && holders[slot] == nil) }
                }
                next += 1
            case 4..<8:
                guard let slot = holders.keys.sorted().randomElement(using: &random) else { continue }
                holders[slot] = nil
                serve(pool.giveBack(slot), slot)
            case 8 where !isEnding:
                guard let slot = coming.sorted().randomElement(using: &random) else { continue }
                coming.remove(slot)
                serve(pool.arrived(slot), slot)
            default:
                guard pool.isGrown else { continue }
                for slot in pool.tick() { #expect(holders[slot] == nil && !coming.contains(slot)) }
            }
            #expect(pool.waitingCount == waiting.count && pool.count >= reserve)
            #expect(holders.count + coming.count <= pool.count)
            #expect(waiting.isEmpty || holders.count + coming.count == pool.count)
        }
        #expect(waiting.isEmpty && holders.isEmpty)
    }
}
