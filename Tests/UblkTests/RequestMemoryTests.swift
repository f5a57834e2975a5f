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
        let descriptors: UnsafeMutablePointer<cs_ublk_io_descriptor>
        let buffers: UnsafeMutableRawPointer
        let memory: RequestMemory

        init(queue: Int) throws {
            file = try TemporaryFile()
            descriptors = .allocate(capacity: depth)
            descriptors.initialize(
                repeating: cs_ublk_io_descriptor(op_flags: 0, nr_sectors: 16, start_sector: 0, addr: 0), count: depth)
            buffers = .allocate(byteCount: depth * sizeBytes, alignment: 4096)
            buffers.initializeMemory(as: UInt8.self, repeating: 0xBB, count: depth * sizeBytes)
            memory = RequestMemory(
                device: file.descriptor, queue: queue, depth: depth,
                descriptors: DescriptorTable(over: descriptors, depth: depth, lengthBytes: 0),
                buffer: { [buffers] in buffers + $0 * sizeBytes })
        }

        deinit {
            descriptors.deallocate()
            buffers.deallocate()
        }

        func bytes(_ tag: Int) -> [UInt8] {
            Array(UnsafeRawBufferPointer(start: buffers + tag * sizeBytes, count: sizeBytes))
        }
    }

    private static let data = (0..<sizeBytes).map { UInt8(truncatingIfNeeded: $0 / 7) }

    @Test func borrowingForAWriteBringsItsData() throws {
        let fixture = try Fixture(queue: 1)
        fixture.descriptors[2].op_flags = 1
        let place = RequestMemory.deviceOffset(queue: 1, tag: 2)
        #expect(pwrite(fixture.file.descriptor, Self.data, Self.sizeBytes, place) == Self.sizeBytes)
        #expect(fixture.memory.borrow(2) == 0)
        #expect(fixture.bytes(2) == Self.data)
        #expect(fixture.bytes(1).allSatisfy { $0 == 0xBB })
        #expect(fixture.bytes(3).allSatisfy { $0 == 0xBB })
        // Nothing goes back.
        #expect(fixture.memory.giveBack(2, 0) == 0)
    }

    @Test func dataThatIsNotThereIsAnError() throws {
        let fixture = try Fixture(queue: 0)
        fixture.descriptors[0].op_flags = 1
        let place = RequestMemory.deviceOffset(queue: 0, tag: 0)
        #expect(pwrite(fixture.file.descriptor, Self.data, 4096, place) == 4096)
        #expect(fixture.memory.borrow(0) == -EIO)
    }

    @Test func aReadInBorrowedMemoryIsGivenBackOnce() throws {
        let fixture = try Fixture(queue: 1)
        #expect(fixture.memory.borrow(3) == 0)
        fixture.buffers.advanced(by: 3 * Self.sizeBytes).copyMemory(from: Self.data, byteCount: Self.sizeBytes)
        #expect(fixture.memory.giveBack(3, 0) == 0)
        var found = [UInt8](repeating: 0, count: Self.sizeBytes)
        let place = RequestMemory.deviceOffset(queue: 1, tag: 3)
        #expect(pread(fixture.file.descriptor, &found, Self.sizeBytes, place) == Self.sizeBytes)
        #expect(found == Self.data)
        // The tag's next read was done in its pages.
        #expect(ftruncate(fixture.file.descriptor, 0) == 0)
        #expect(fixture.memory.giveBack(3, 0) == 0)
        #expect(lseek(fixture.file.descriptor, 0, SEEK_END) == 0)
    }

    @Test func aReadThatFailedGivesNothingBack() throws {
        let fixture = try Fixture(queue: 0)
        #expect(fixture.memory.borrow(1) == 0)
        #expect(fixture.memory.giveBack(1, -EIO) == -EIO)
        #expect(lseek(fixture.file.descriptor, 0, SEEK_END) == 0)
        #expect(fixture.memory.giveBack(1, 0) == 0)
        #expect(lseek(fixture.file.descriptor, 0, SEEK_END) == 0)
    }

    @Test func requestsWithoutDataBorrowNothing() throws {
        let fixture = try Fixture(queue: 0)
        for operation: UInt32 in [2, 3, 5] {
            fixture.descriptors[0].op_flags = operation
            #expect(fixture.memory.borrow(0) == 0)
            #expect(fixture.memory.giveBack(0, 0) == 0)
        }
        #expect(lseek(fixture.file.descriptor, 0, SEEK_END) == 0)
    }
}
