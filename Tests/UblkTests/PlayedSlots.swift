import Glibc

@testable import Ublk

/// Slots in ordinary memory, which come when the test says so.
final class PlayedSlots: BufferSlots {
    /// Those that were asked for and are not there yet.
    private(set) var asked: [BufferSlot] = []
    private(set) var removed: [BufferSlot] = []
    private var arrived: [BufferSlot] = []
    private let memory: UnsafeMutableRawPointer
    private let depth: Int
    private let smallBytes: Int
    private let largeBytes: Int
    private let smallReserve: Int

    init(depth: Int, smallBytes: Int = 4096, largeBytes: Int = 8192, smallReserve: Int = 1) {
        self.depth = depth
        self.smallBytes = smallBytes
        self.largeBytes = largeBytes
        self.smallReserve = smallReserve
        memory = .allocate(byteCount: depth * (smallBytes + largeBytes), alignment: 4096)
        memory.initializeMemory(as: UInt8.self, repeating: 0xBB, count: depth * (smallBytes + largeBytes))
    }

    deinit { memory.deallocate() }

    func sizeBytes(_ size: BufferSlot.Size) -> Int { size == .small ? smallBytes : largeBytes }
    func reserve(_ size: BufferSlot.Size) -> Int { size == .small ? smallReserve : 1 }
    func start(_ size: BufferSlot.Size) -> UnsafeMutableRawPointer { size == .large ? memory : memory + depth * largeBytes }
    func bring(_ slot: BufferSlot) { asked.append(slot) }
    func remove(_ slot: BufferSlot) { removed.append(slot) }

    func takeArrived() -> [BufferSlot] {
        defer { arrived = [] }
        return arrived
    }

    func bringAll() {
        arrived += asked
        asked = []
    }
}

/// A queue of a device with zero copy, with as much memory as for one request of each size until the test brings more.
struct LendingQueue {
    let slots: PlayedSlots
    let memory: RequestMemory
    let played: PlayedQueue
    private let device: Int32

    init(depth: Int = 4) throws {
        slots = PlayedSlots(depth: depth)
        // As long as any request's data, and it takes everything.
        device = open("/dev/zero", O_RDWR | O_CLOEXEC)
        memory = RequestMemory(device: device, queue: 0, depth: depth, slots: slots)
        played = try PlayedQueue(depth: depth, memory: memory)
    }

    func close() { _ = Glibc.close(device) }
}
