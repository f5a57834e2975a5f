import CSupport
import Glibc
import Platform
import SystemPackage

/// Where a slot of a queue's memory lies: which size it has, and its number among those.
public struct BufferSlot: Equatable, Sendable {
    /// Most requests are small. Were there one size only, 32 of them would need the memory of 32 large ones.
    public enum Size: Int, CaseIterable, Sendable { case small, large }

    public var size: Size
    public var number: Int

    public init(_ size: Size, _ number: Int) {
        self.size = size
        self.number = number
    }
}

/// Slots in the address space, and who brings them into memory and takes them out again.
///
/// `SlotMemory` is the real one; tests play another. Everything belongs to the queue's thread.
public protocol BufferSlots: AnyObject {
    /// Of each size, as many as the queue has tags.
    func sizeBytes(_ size: BufferSlot.Size) -> Int
    /// How many slots of the size are in memory from the beginning.
    func reserve(_ size: BufferSlot.Size) -> Int
    /// Where those of a size begin, which lie one behind the other.
    func start(_ size: BufferSlot.Size) -> UnsafeMutableRawPointer
    /// Has a slot brought into memory, without waiting for it; the loop is woken when it is there.
    func bring(_ slot: BufferSlot)
    /// Has it taken out again, before it is brought the next time.
    func remove(_ slot: BufferSlot)
    /// Those that are there now.
    func takeArrived() -> [BufferSlot]
}

/// The address space of a queue's slots. The reserve is in memory from the beginning; more comes and goes.
///
/// What comes is touched by a thread of its own, never by the queue's: while memory is short the kernel may look for some for
/// ever, because all that could be freed has to be written to this very disk first. The thread touches it as any program
/// does, which holds up no other thread that changes the process's address space meanwhile (Linux 6.4), as `madvise` would. It
/// runs where the queue's thread does, so the memory is near.
final class SlotMemory: BufferSlots, @unchecked Sendable {
    // SAFETY: the mapping lives as long as any reference to this, and the thread's calls hold one. A slot is touched by the
    // thread while it is on its way in or out, and by the queue's thread otherwise: `arrived` hands it over.
    private let mapping: UnsafeMutableRawPointer
    private let depth: Int
    private let smallBytes: Int
    private let largeBytes: Int
    private let thread: SerialThread
    private let wake: @Sendable () -> Void
    private let arrived = Lock<[BufferSlot]>([])
    /// Why it may be swapped out.
    let lockFailure: Errno?

    /// Of the small slots of each queue.
    private static let smallReserveBytes = 256 << 10

    /// - Parameters:
    ///   - largestBytes: of a request.
    ///   - wake: has the queue's loop look for what has arrived. Any thread may call it.
    /// - Throws: the errno of `mmap`, or of starting the thread.
    init(depth: Int, largestBytes: Int, wake: @escaping @Sendable () -> Void) throws(Errno) {
        let page = systemPageSizeBytes
        self.depth = depth
        self.wake = wake
        largeBytes = (largestBytes + page - 1) / page * page
        smallBytes = min(max(16 << 10, page), largeBytes)
        thread = try SerialThread(name: "memory")
        let sizeBytes = depth * (smallBytes + largeBytes)
        let mapped = mmap(
            nil, sizeBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(rawValue: errno) }
        mapping = mapped
        // Once touched. A huge page would bring slots with it that nobody needs.
        let locked = cs_lock_range_on_fault(mapped, UInt64(sizeBytes))
        lockFailure = locked == 0 ? nil : Errno(rawValue: -locked)
        cs_refuse_huge_pages(mapped, UInt64(sizeBytes))
        for size in BufferSlot.Size.allCases {
            for number in 0..<reserve(size) { touch(BufferSlot(size, number)) }
        }
    }

    deinit { munmap(mapping, depth * (smallBytes + largeBytes)) }

    func sizeBytes(_ size: BufferSlot.Size) -> Int { size == .small ? smallBytes : largeBytes }

    func reserve(_ size: BufferSlot.Size) -> Int {
        size == .small ? min(depth, max(SlotMemory.smallReserveBytes / smallBytes, 1)) : 1
    }

    func start(_ size: BufferSlot.Size) -> UnsafeMutableRawPointer {
        size == .large ? mapping : mapping + depth * largeBytes
    }

    private func address(_ slot: BufferSlot) -> UnsafeMutableRawPointer {
        start(slot.size) + slot.number * sizeBytes(slot.size)
    }

    private func touch(_ slot: BufferSlot) { cs_touch_range(address(slot), UInt64(sizeBytes(slot.size))) }

    func bring(_ slot: BufferSlot) {
        thread.append { [self] in
            // What is swapped to the disk needs the kernel's last pages more than this does.
            cs_become_ordinary_thread()
            touch(slot)
            arrived.withLock { $0.append(slot) }
            wake()
        }
    }

    func remove(_ slot: BufferSlot) {
        thread.append { [self] in cs_forget_range(address(slot), UInt64(sizeBytes(slot.size))) }
    }

    func takeArrived() -> [BufferSlot] {
        arrived.withLock { arrived in
            defer { arrived = [] }
            return arrived
        }
    }
}
