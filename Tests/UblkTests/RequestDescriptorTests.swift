import CSupport
import Glibc
import Testing

@testable import Ublk

struct RequestDescriptorTests {
    private func descriptor(_ opFlags: UInt32, sectors: UInt32 = 8, start: UInt64 = 16) -> RequestDescriptor {
        RequestDescriptor(
            cs_ublk_io_descriptor(op_flags: opFlags, nr_sectors: sectors, start_sector: start, addr: 0x1000))
    }

    private static let operations: [(UInt32, RequestOperation)] = [
        (0, .read), (1, .write), (2, .flush), (3, .discard), (5, .writeZeroes), (4, .other(4)),
        (6, .other(6)), (18, .other(18)), (255, .other(255)),
    ]

    @Test(arguments: operations)
    func operationIsTheLowByte(raw: UInt32, operation: RequestOperation) {
        #expect(descriptor(raw).operation == operation)
        #expect(descriptor(raw | 0xFFFF_FF00).operation == operation)
        #expect(descriptor(raw).flags.isEmpty)
    }

    @Test func flagsStandUnshifted() {
        #expect(descriptor(1 | 1 << 13).flags == .forceUnitAccess)
        #expect(descriptor(5 | 1 << 15).flags == .noUnmap)
        #expect(descriptor(1 | 1 << 11 | 1 << 16).flags == [.metadata, .swap])
        #expect(descriptor(1 << 17).flags == .needsBufferRegistration)
        #expect(descriptor(5 | 1 << 15 | 1 << 13).flags == [.noUnmap, .forceUnitAccess])
        // The bits where the flags would stand if they were shifted.
        #expect(descriptor(5 | 1 << 7).flags.isEmpty)
    }

    @Test func placesAreInBytes() {
        let request = descriptor(0, sectors: 8, start: 16)
        #expect(request.startSector == 16)
        #expect(request.sectorCount == 8)
        #expect(request.deviceOffset == 8192)
        #expect(request.sizeBytes == 4096)
        #expect(request.bufferAddress == 0x1000)
    }

    @Test func extremeValuesDoNotTrap() {
        let request = descriptor(.max, sectors: .max, start: .max)
        #expect(request.operation == .other(255))
        #expect(request.sizeBytes == Int(UInt32.max) * 512)
        #expect(request.deviceOffset == UInt64.max << 9)
    }

    /// As Linux sends it.
    @Test func flushHasNoPlace() {
        let request = descriptor(2, sectors: 0, start: .max)
        #expect(request.operation == .flush)
        #expect(request.sizeBytes == 0)
        #expect(request.startSector == .max)
    }

    @Test func queuesLieApartAsTheDeepestWould() {
        #expect(DescriptorPlace(queue: 0, depth: 1, pageSizeBytes: 4096) == .init(offset: 0, length: 4096))
        #expect(DescriptorPlace(queue: 3, depth: 128, pageSizeBytes: 4096) == .init(offset: 3 * 98304, length: 4096))
        #expect(DescriptorPlace(queue: 1, depth: 171, pageSizeBytes: 4096) == .init(offset: 98304, length: 8192))
        #expect(DescriptorPlace(queue: 1, depth: 4096, pageSizeBytes: 4096) == .init(offset: 98304, length: 98304))
        #expect(DescriptorPlace(queue: 2, depth: 128, pageSizeBytes: 65536) == .init(offset: 262144, length: 65536))
    }

    /// A file in place of the character device: same offsets, same length, and what it holds is what is read.
    @Test func mappedTableShowsTheQueuesDescriptors() throws {
        let file = try TemporaryFile()
        let place = DescriptorPlace(queue: 1, depth: 200, pageSizeBytes: systemPageSizeBytes)
        #expect(ftruncate(file.descriptor, place.fileOffset + place.lengthBytes) == 0)
        var last = cs_ublk_io_descriptor(op_flags: 1 | 1 << 13, nr_sectors: 24, start_sector: 77, addr: 9)
        #expect(pwrite(file.descriptor, &last, 24, place.fileOffset + 199 * 24) == 24)

        let device = UblkCharacterDevice(id: 0, descriptor: dup(file.descriptor))
        let table = try DescriptorTable.map(device, queue: 1, depth: 200)
        device.close()
        device.close()
        #expect(table[0].operation == .read)
        #expect(table[199].operation == .write)
        #expect(table[199].flags == .forceUnitAccess)
        #expect(table[199].startSector == 77)
        #expect(table[199].sizeBytes == 24 * 512)
        // The kernel writes the next request over the last one; the table must show it.
        last.op_flags = 2
        #expect(pwrite(file.descriptor, &last, 24, place.fileOffset + 199 * 24) == 24)
        #expect(table[199].operation == .flush)
        table.unmap()
    }

    @Test func mappingWhatCannotBeMappedIsAnError() throws {
        var ends: [Int32] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { close(ends[1]) }
        let device = UblkCharacterDevice(id: 0, descriptor: ends[0])
        #expect(throws: (any Error).self) { try DescriptorTable.map(device, queue: 0, depth: 1) }
    }
}

extension DescriptorPlace {
    fileprivate init(offset: Int, length: Int) {
        self.init(queue: 0, depth: 1, pageSizeBytes: 4096)
        fileOffset = offset
        lengthBytes = length
    }
}

/// An unnamed file that is gone with its last descriptor.
final class TemporaryFile {
    let descriptor: Int32

    struct Failure: Error {}

    init() throws {
        descriptor = open("/tmp", O_RDWR | O_CLOEXEC | 0o20200000, 0o600)  // O_TMPFILE
        if descriptor < 0 { throw Failure() }
    }

    deinit { close(descriptor) }
}
