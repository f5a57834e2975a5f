import CSupport
import Glibc
import SystemPackage

/// The tags' buffers of a queue whose requests' data stays in the kernel's pages: a tag's buffer has the data only
/// while it is borrowed.
///
/// The copies are plain reads and writes of the character device (feature `userCopy`, 6.5), as the driver itself makes
/// them where it copies: from memory to memory, waiting for nothing. Asked of io_uring, the device would have them done
/// by another thread each time.
///
/// Belongs to the queue's thread.
public final class RequestMemory {
    // SAFETY: the buffers, the descriptors and the device are the queue loop's, which outlive its target.
    private let device: Int32
    private let queue: Int
    private let descriptors: DescriptorTable
    private let buffer: (Int) -> UnsafeMutableRawPointer
    /// Reads whose data has to be brought to the request's pages in the end.
    private var isLent: [Bool]

    init(
        device: Int32, queue: Int, depth: Int, descriptors: DescriptorTable,
        buffer: @escaping (Int) -> UnsafeMutableRawPointer
    ) {
        self.device = device
        self.queue = queue
        self.descriptors = descriptors
        self.buffer = buffer
        isLent = Array(repeating: false, count: depth)
    }

    /// From now on the tag's buffer counts, until the request is finished: of a write it holds the data, of a read it
    /// takes it.
    /// - Returns: 0, or a negative errno, with which the request is to be finished.
    public func borrow(_ tag: Int) -> Int32 {
        let request = descriptors[tag]
        switch request.operation {
        case .write: return copy(tag, request.sizeBytes) { pread(self.device, $0, $1, $2) }
        case .read: isLent[tag] = true
        default: break
        }
        return 0
    }

    /// Before a read is committed: brings its data to the request's pages, where its memory was borrowed.
    /// - Returns: the result to commit.
    func giveBack(_ tag: Int, _ result: Int32) -> Int32 {
        guard isLent[tag] else { return result }
        isLent[tag] = false
        if result < 0 { return result }
        let copied = copy(tag, descriptors[tag].sizeBytes) { pwrite(self.device, $0, $1, $2) }
        return copied == 0 ? result : copied
    }

    private func copy(
        _ tag: Int, _ sizeBytes: Int, _ transfer: (UnsafeMutableRawPointer, Int, Int) -> Int
    ) -> Int32 {
        var done = 0
        while done < sizeBytes {
            let place = RequestMemory.deviceOffset(queue: queue, tag: tag) + done
            let count = transfer(buffer(tag) + done, sizeBytes - done, place)
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
}
