import CSupport
import Glibc
import SystemPackage

/// The memory of a queue whose requests' data stays in the kernel's pages: lent to a request that needs its data in memory,
/// from when it asks for it until it is answered.
///
/// A queue has little of it while it has little to do. A request for which there is none waits, while more is brought into
/// memory, or until another one is answered; the requests that have memory are enough to go on with, whatever the kernel
/// has left.
///
/// The copies are plain reads and writes of the character device (feature `userCopy`, 6.5), as the driver itself makes
/// them where it copies: from memory to memory, waiting for nothing. Asked of io_uring, the device would have them done
/// by another thread each time.
///
/// Belongs to the queue's thread.
public final class RequestMemory {
    /// What a request gets.
    public enum Loan: Equatable {
        /// Its memory, until it is answered. That of a write has its data.
        case lent(UnsafeMutableRawPointer)
        /// Nothing for now. It comes from `nextReady` in its turn, and is started then.
        case deferred
        /// A negative errno, with which the request is to be answered.
        case refused(Int32)
    }

    private struct Holding {
        /// Of a request that has memory.
        var slot: BufferSlot?
        var sizeBytes = 0
        /// A read, whose data has to be brought to the request's pages in the end.
        var isRead = false
    }

    private let device: Int32
    private let queue: Int
    // SAFETY: slots lie in memory that `slots` keeps mapped; a slot is one request's from `take` to `giveBack`.
    private let slots: any BufferSlots
    private let smallStart: UnsafeMutableRawPointer
    private let largeStart: UnsafeMutableRawPointer
    private let smallBytes: Int
    private let largeBytes: Int
    private var small: BufferPool
    private var large: BufferPool
    private var holdings: [Holding]
    /// Requests that have waited and have a slot now.
    private var ready: [Int] = []

    /// - Parameters:
    ///   - device: the character device, which outlives this.
    ///   - depth: how many tags the queue has, and slots there are of each size.
    public init(device: Int32, queue: Int, depth: Int, slots: any BufferSlots) {
        self.device = device
        self.queue = queue
        self.slots = slots
        smallStart = slots.start(.small)
        largeStart = slots.start(.large)
        smallBytes = slots.sizeBytes(.small)
        largeBytes = slots.sizeBytes(.large)
        small = BufferPool(slotCount: depth, reserve: slots.reserve(.small))
        large = BufferPool(slotCount: depth, reserve: slots.reserve(.large))
        holdings = Array(repeating: Holding(), count: depth)
        ready.reserveCapacity(depth)
    }

    // MARK: - Lending

    /// For a read or a write: memory for its data, from now on until it is answered. Whoever is told to wait starts the request
    /// anew when `nextReady` names it, and holds nothing meanwhile that another request might wait for.
    public func borrow(_ tag: Int, isWrite: Bool, sizeBytes: Int) -> Loan {
        // The driver keeps to the size that it was made with.
        guard sizeBytes <= largeBytes else { return .refused(-EINVAL) }
        if holdings[tag].slot == nil {
            guard take(tag, sizeBytes <= smallBytes ? .small : .large) else { return .deferred }
        }
        guard let slot = holdings[tag].slot else { preconditionFailure("a loan of nothing") }
        holdings[tag].sizeBytes = sizeBytes
        holdings[tag].isRead = !isWrite
        let buffer = address(slot)
        if isWrite {
            let result = copy(tag, buffer, sizeBytes) { pread(self.device, $0, $1, $2) }
            if result != 0 { return .refused(result) }
        }
        return .lent(buffer)
    }

    private func take(_ tag: Int, _ size: BufferSlot.Size) -> Bool {
        switch size == .small ? small.take(for: tag) : large.take(for: tag) {
        case .slot(let number):
            holdings[tag].slot = BufferSlot(size, number)
            return true
        case .waits(let bringing):
            if let number = bringing { slots.bring(BufferSlot(size, number)) }
            return false
        }
    }

    /// Before a request is answered: brings a read's data to the request's pages, where it has memory, and takes that back.
    /// - Returns: the result to answer with.
    @inline(__always)
    func giveBack(_ tag: Int, _ result: Int32) -> Int32 {
        guard let slot = holdings[tag].slot else { return result }
        var answer = result
        if holdings[tag].isRead && result >= 0 {
            let copied = copy(tag, address(slot), holdings[tag].sizeBytes) { pwrite(self.device, $0, $1, $2) }
            if copied != 0 { answer = copied }
        }
        holdings[tag].slot = nil
        if let next = slot.size == .small ? small.giveBack(slot.number) : large.giveBack(slot.number) { hand(slot, to: next) }
        return answer
    }

    @inline(__always)
    private func address(_ slot: BufferSlot) -> UnsafeMutableRawPointer {
        slot.size == .small ? smallStart + slot.number * smallBytes : largeStart + slot.number * largeBytes
    }

    private func hand(_ slot: BufferSlot, to tag: Int) {
        precondition(holdings[tag].slot == nil, "a request that has memory waits for some")
        holdings[tag].slot = slot
        ready.append(tag)
    }

    private func copy(
        _ tag: Int, _ buffer: UnsafeMutableRawPointer, _ sizeBytes: Int,
        _ transfer: (UnsafeMutableRawPointer, Int, Int) -> Int
    ) -> Int32 {
        var done = 0
        while done < sizeBytes {
            let place = RequestMemory.deviceOffset(queue: queue, tag: tag) + done
            let count = transfer(buffer + done, sizeBytes - done, place)
            if count < 0 && errno == EINTR { continue }
            guard count > 0 else { return count < 0 ? -errno : -EIO }
            done += count
        }
        return 0
    }

    /// Where a request's data begins in the character device.
    static func deviceOffset(queue: Int, tag: Int) -> Int {
        Int(CS_UBLK_DATA_OFFSET) + tag << Int(CS_UBLK_DATA_TAG_SHIFT) + queue << Int(CS_UBLK_DATA_QUEUE_SHIFT)
    }

    // MARK: - More and less of it

    /// A request that has waited, and whose `borrow` will be answered now. To be asked until there is none, in each turn.
    @inline(__always)
    func nextReady() -> Int? {
        if small.isBringing || large.isBringing { takeArrived() }
        return ready.isEmpty ? nil : ready.removeFirst()
    }

    private func takeArrived() {
        for slot in slots.takeArrived() {
            if let tag = slot.size == .small ? small.arrived(slot.number) : large.arrived(slot.number) { hand(slot, to: tag) }
        }
    }

    /// Whether `tick` has to be called: there is more memory than the reserve.
    @inline(__always)
    var needsTick: Bool { small.isGrown || large.isGrown }

    /// About once a second: what nobody has needed for a while goes back to the kernel.
    func tick() {
        if small.isGrown { for number in small.tick() { slots.remove(BufferSlot(.small, number)) } }
        if large.isGrown { for number in large.tick() { slots.remove(BufferSlot(.large, number)) } }
    }

    /// Of what is in memory, or on its way there.
    var sizeBytes: Int { small.count * smallBytes + large.count * largeBytes }
}
