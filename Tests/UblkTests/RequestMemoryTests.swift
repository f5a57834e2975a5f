import CSupport
import Glibc
import Testing

@testable import Ublk

/// A file in place of the character device: data stands where the kernel has it.
struct RequestMemoryTests {
    private static let depth = 4
    private static let sizeBytes = 8192

    private final class Fixture {
        let file: TemporaryFile
        let slots: PlayedSlots
        let memory: RequestMemory
        let queue: Int

        init(queue: Int) throws {
            self.queue = queue
            file = try TemporaryFile()
            slots = PlayedSlots(depth: depth, smallBytes: 4096, largeBytes: sizeBytes, smallReserve: 2)
            memory = RequestMemory(device: file.descriptor, queue: queue, depth: depth, slots: slots)
        }

        /// Where the kernel has the data of a tag's request.
        func place(_ tag: Int) -> Int { RequestMemory.deviceOffset(queue: queue, tag: tag) }

        func bytes(_ loan: RequestMemory.Loan) -> [UInt8]? {
            guard case .lent(let buffer) = loan else { return nil }
            return Array(UnsafeRawBufferPointer(start: buffer, count: sizeBytes))
        }

        var fileSizeBytes: off_t { lseek(file.descriptor, 0, SEEK_END) }
    }

    private static let data = (0..<sizeBytes).map { UInt8(truncatingIfNeeded: $0 / 7) }

    @Test func borrowingForAWriteBringsItsData() throws {
        let fixture = try Fixture(queue: 1)
        #expect(pwrite(fixture.file.descriptor, Self.data, Self.sizeBytes, fixture.place(2)) == Self.sizeBytes)
        let loan = fixture.memory.borrow(2, isWrite: true, sizeBytes: Self.sizeBytes)
        #expect(fixture.bytes(loan) == Self.data)
        // Nothing goes back.
        #expect(ftruncate(fixture.file.descriptor, 0) == 0)
        #expect(fixture.memory.giveBack(2, 0) == 0)
        #expect(fixture.fileSizeBytes == 0)
    }

    @Test func dataThatIsNotThereIsAnError() throws {
        let fixture = try Fixture(queue: 0)
        #expect(pwrite(fixture.file.descriptor, Self.data, 4096, fixture.place(0)) == 4096)
        #expect(fixture.memory.borrow(0, isWrite: true, sizeBytes: Self.sizeBytes) == .refused(-EIO))
        // The memory is the request's until it is answered, and the next one's then.
        #expect(fixture.memory.borrow(1, isWrite: false, sizeBytes: Self.sizeBytes) == .deferred)
        #expect(fixture.memory.giveBack(0, -EIO) == -EIO)
        #expect(fixture.memory.nextReady() == 1)
    }

    @Test func aReadInBorrowedMemoryIsGivenBackOnce() throws {
        let fixture = try Fixture(queue: 1)
        guard case .lent(let buffer) = fixture.memory.borrow(3, isWrite: false, sizeBytes: Self.sizeBytes) else {
            Issue.record("no memory")
            return
        }
        buffer.copyMemory(from: Self.data, byteCount: Self.sizeBytes)
        #expect(fixture.memory.giveBack(3, 0) == 0)
        var found = [UInt8](repeating: 0, count: Self.sizeBytes)
        #expect(pread(fixture.file.descriptor, &found, Self.sizeBytes, fixture.place(3)) == Self.sizeBytes)
        #expect(found == Self.data)
        // The tag's next read was done in its pages.
        #expect(ftruncate(fixture.file.descriptor, 0) == 0)
        #expect(fixture.memory.giveBack(3, 0) == 0)
        #expect(fixture.fileSizeBytes == 0)
    }

    @Test func aReadThatFailedGivesNoDataBack() throws {
        let fixture = try Fixture(queue: 0)
        #expect(fixture.bytes(fixture.memory.borrow(1, isWrite: false, sizeBytes: 512)) != nil)
        #expect(fixture.memory.giveBack(1, -EIO) == -EIO)
        #expect(fixture.memory.giveBack(1, 0) == 0)
        #expect(fixture.fileSizeBytes == 0)
    }

    @Test func aRequestLargerThanTheDeviceTakesIsRefused() throws {
        let fixture = try Fixture(queue: 0)
        #expect(fixture.memory.borrow(0, isWrite: false, sizeBytes: Self.sizeBytes + 512) == .refused(-EINVAL))
        #expect(fixture.memory.giveBack(0, -EINVAL) == -EINVAL)
    }

    @Test func sizesHaveSlotsOfTheirOwn() throws {
        let fixture = try Fixture(queue: 0)
        #expect(fixture.bytes(fixture.memory.borrow(0, isWrite: false, sizeBytes: Self.sizeBytes)) != nil)
        #expect(fixture.memory.borrow(1, isWrite: false, sizeBytes: 4608) == .deferred)
        #expect(fixture.slots.asked == [BufferSlot(.large, 1)])
        // A small one does not wait behind it.
        guard case .lent(let first) = fixture.memory.borrow(2, isWrite: false, sizeBytes: 4096),
            case .lent(let second) = fixture.memory.borrow(3, isWrite: false, sizeBytes: 512)
        else {
            Issue.record("no memory")
            return
        }
        #expect(abs(second - first) == 4096)
        #expect(fixture.memory.nextReady() == nil)
        fixture.slots.bringAll()
        #expect(fixture.memory.nextReady() == 1)
        #expect(fixture.memory.nextReady() == nil)
        #expect(fixture.memory.sizeBytes == 2 * 4096 + 2 * Self.sizeBytes)
    }

    @Test func whatCameLeavesWhenNobodyNeedsIt() throws {
        let fixture = try Fixture(queue: 0)
        for tag in 0..<3 { _ = fixture.memory.borrow(tag, isWrite: false, sizeBytes: Self.sizeBytes) }
        fixture.slots.bringAll()
        #expect(fixture.memory.nextReady() == 1 && fixture.memory.nextReady() == 2)
        #expect(fixture.memory.needsTick)
        for tag in 0..<3 { #expect(fixture.memory.giveBack(tag, -EIO) == -EIO) }
        for _ in 0..<(2 * BufferPool.idleTicks) { fixture.memory.tick() }
        #expect(fixture.slots.removed.count == 2 && !fixture.memory.needsTick)
        #expect(fixture.memory.sizeBytes == 2 * 4096 + Self.sizeBytes)
    }

    /// The real one: what is brought is in memory, what is removed is not, and none of it is lost or mixed up.
    @Test func slotsComeAndGo() throws {
        let woken = eventfd(0, 0)
        defer { close(woken) }
        let slots = try SlotMemory(depth: 8, largestBytes: 65536, wake: { cs_eventfd_signal(woken) })
        let small = BufferSlot.Size.small
        #expect(slots.sizeBytes(.large) == 65536 && slots.sizeBytes(small) < 65536)
        #expect(Self.residentBytes(slots, .large) == 65536)
        let last = BufferSlot(.large, 7)
        slots.bring(last)
        var count: UInt64 = 0
        #expect(read(woken, &count, 8) == 8)
        #expect(slots.takeArrived() == [last] && slots.takeArrived() == [])
        #expect(Self.residentBytes(slots, .large) == 2 * 65536)
        memset(slots.start(.large) + 7 * 65536, 0xAB, 65536)
        slots.remove(last)
        slots.bring(last)
        #expect(read(woken, &count, 8) == 8)
        // Taken out first.
        #expect((slots.start(.large) + 8 * 65536 - 1).load(as: UInt8.self) == 0)
        #expect(slots.takeArrived() == [last])
    }

    private static func residentBytes(_ slots: SlotMemory, _ size: BufferSlot.Size) -> Int {
        let pages = 8 * slots.sizeBytes(size) / 4096
        var resident = [UInt8](repeating: 0, count: pages)
        guard mincore(slots.start(size), pages * 4096, &resident) == 0 else { return -1 }
        return resident.count { $0 & 1 == 1 } * 4096
    }
}
