import BlockStorage
import Glibc
import QEDEngine
import QEDFormat
import SystemPackage

/// Copies a raw disk that comes through a pipe into a new image: everything in order, once, and nobody knows how long it is
/// before it ends. Zeros are left out.
///
/// While one piece is read others are being written. Belongs to the target's thread.
final class StreamCopy {
    private let stream: FileDescriptor
    /// For messages.
    private let name: String
    private let target: Disk
    private let blockBytes: Int
    private let buffers: PageBuffer
    /// Parts of each slot's buffer that are still to be written, the next one last.
    private var parts: [[Range<Int>]]
    private var starts: [UInt64]
    private var freeSlots: [Int]
    private var failure: ImageToolError?

    /// - Parameter stream: read to its end, and left open.
    init(from stream: FileDescriptor, called name: String, to target: Disk) {
        self.stream = stream
        self.name = name
        self.target = target
        blockBytes = min(Int(target.geometry?.clusterSizeBytes ?? 4096), Disk.largestRequestBytes)
        buffers = PageBuffer(byteCount: target.depth * Disk.largestRequestBytes)
        parts = Array(repeating: [], count: target.depth)
        starts = Array(repeating: 0, count: target.depth)
        freeSlots = Array((0..<target.depth).reversed())
    }

    /// Blocks until the stream has ended and all of it is written; it need not be durable.
    /// - Returns: the length of the stream, rounded up to whole sectors.
    func run() throws(ImageToolError) -> UInt64 {
        var position: UInt64 = 0
        var hasEnded = false
        while !hasEnded, failure == nil {
            let slot = takeSlot()
            starts[slot] = position
            let byteCount = readPiece(into: slot)
            hasEnded = byteCount < Disk.largestRequestBytes
            let wholeBytes = roundedUp(byteCount, to: max(Int(target.offsetAlignmentBytes), Int(QEDLimits.sectorSizeBytes)))
            guard UInt64(wholeBytes) <= target.sizeBytes - position else {
                failure = .refused(
                    path: target.path,
                    reason: "\(name) does not end within \(target.sizeBytes) bytes, all that clusters and tables of these "
                        + "sizes can map; choose larger ones")
                freeSlots.append(slot)
                break
            }
            (address(slot) + byteCount).initializeMemory(as: UInt8.self, repeating: 0, count: wholeBytes - byteCount)
            parts[slot] = Zeros.others(address(slot), count: wholeBytes, blockBytes: blockBytes).reversed()
            position += UInt64(roundedUp(byteCount, to: Int(QEDLimits.sectorSizeBytes)))
            writeNext(slot)
        }
        // No buffer may be freed while a request is under way.
        while freeSlots.count < target.depth { step(waits: true) }
        if let failure { throw failure }
        return position
    }

    private func roundedUp(_ byteCount: Int, to unit: Int) -> Int { (byteCount + unit - 1) / unit * unit }

    /// - Returns: less than a whole piece only at the stream's end.
    private func readPiece(into slot: Int) -> Int {
        var byteCount = 0
        while byteCount < Disk.largestRequestBytes {
            let rest = UnsafeMutableRawBufferPointer(
                start: address(slot) + byteCount, count: Disk.largestRequestBytes - byteCount)
            do throws(Errno) {
                let count = try stream.readWaiting(into: rest)
                if count == 0 { break }
                byteCount += count
            } catch {
                failure = .request(
                    path: name, "read", deviceOffset: starts[slot] + UInt64(byteCount), error)
                break
            }
        }
        return byteCount
    }

    private func address(_ slot: Int) -> UnsafeMutableRawPointer {
        buffers.address + slot * Disk.largestRequestBytes
    }

    private func takeSlot() -> Int {
        step(waits: false)
        while true {
            if let slot = freeSlots.popLast() { return slot }
            step(waits: true)
        }
    }

    private func step(waits: Bool) {
        target.turn(waits: waits)
        while let (slot, result) = target.nextFinished() {
            if result < 0 && failure == nil {
                failure = .request(path: target.path, "write", deviceOffset: starts[slot], Errno(rawValue: -result))
            }
            writeNext(slot)
        }
    }

    private func writeNext(_ slot: Int) {
        guard failure == nil, let part = parts[slot].popLast() else { return freeSlots.append(slot) }
        target.start(
            slot,
            BlockRequest(
                .write, deviceOffset: starts[slot] + UInt64(part.lowerBound), byteCount: UInt64(part.count),
                buffer: address(slot) + part.lowerBound))
    }
}
