import CSupport
import Glibc
import SystemPackage

/// The request descriptors of one queue, one per tag, shared with the kernel.
///
/// A reference to a mapping, cheap to copy. Whoever maps it unmaps it, before the device can be deleted. Read a tag's
/// descriptor after its completion and before its commit; outside that time the kernel may be writing to it.
public struct DescriptorTable: @unchecked Sendable {
    // SAFETY: the memory is valid from `map` to `unmap`, and the rule above orders our reads after the kernel's writes:
    // the completion is taken from the ring with acquire ordering.
    @usableFromInline let descriptors: UnsafePointer<cs_ublk_io_descriptor>
    @usableFromInline let depth: Int
    private let lengthBytes: Int

    init(over descriptors: UnsafePointer<cs_ublk_io_descriptor>, depth: Int, lengthBytes: Int) {
        self.descriptors = descriptors
        self.depth = depth
        self.lengthBytes = lengthBytes
    }

    /// Maps one queue of an open character device.
    ///
    /// Only one process may map, so fork before.
    /// - Parameters:
    ///   - queue: below the device's queue count.
    ///   - depth: the device's queue depth.
    /// - Throws: the errno of `mmap`; EINVAL where another process has the device mapped.
    public static func map(
        _ device: UblkCharacterDevice, queue: Int, depth: Int
    ) throws(Errno) -> DescriptorTable {
        let place = DescriptorPlace(queue: queue, depth: depth, pageSizeBytes: systemPageSizeBytes)
        let address = mmap(
            nil, place.lengthBytes, PROT_READ, MAP_SHARED | MAP_POPULATE, device.descriptor, place.fileOffset)
        guard let address, address != MAP_FAILED else { throw Errno(rawValue: errno) }
        // SAFETY: the kernel has put `depth` descriptors there, and nobody but it can write to the mapping.
        return DescriptorTable(
            over: address.assumingMemoryBound(to: cs_ublk_io_descriptor.self), depth: depth,
            lengthBytes: place.lengthBytes)
    }

    public func unmap() { munmap(UnsafeMutableRawPointer(mutating: descriptors), lengthBytes) }

    @inlinable @inline(__always)
    public subscript(tag: Int) -> RequestDescriptor {
        precondition(tag >= 0 && tag < depth, "no such tag in this queue")
        return RequestDescriptor(descriptors[tag])
    }
}

/// Where a queue's descriptors lie in the character device's address space.
///
/// Queues stand as far apart as the deepest possible ones would have to, and the length must be exact, or mmap answers
/// EINVAL.
struct DescriptorPlace: Equatable {
    var fileOffset: Int
    var lengthBytes: Int

    init(queue: Int, depth: Int, pageSizeBytes: Int) {
        precondition(
            (0..<Int(CS_UBLK_MAX_QUEUES)).contains(queue) && (1...Int(CS_UBLK_MAX_QUEUE_DEPTH)).contains(depth),
            "not a queue that the driver makes")
        func roundedUp(tags: Int) -> Int {
            let bytes = tags * MemoryLayout<cs_ublk_io_descriptor>.size
            return (bytes + pageSizeBytes - 1) / pageSizeBytes * pageSizeBytes
        }
        fileOffset = queue * roundedUp(tags: Int(CS_UBLK_MAX_QUEUE_DEPTH))
        lengthBytes = roundedUp(tags: depth)
    }
}
