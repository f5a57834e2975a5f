import Glibc
import QEDEngine
import SystemPackage

/// Sends a disk through a pipe, raw: everything in order, zeros too, once.
///
/// While one piece is written others are being read. Belongs to the source's thread.
final class DiskStream {
    private let source: Disk
    private let map: DiskMap
    private let target: StreamTarget
    private let stream: FileDescriptor
    private let buffers: PageBuffer
    private let zeros: PageBuffer
    /// What is next to be written, in order.
    private var pieces: [Piece] = []
    private var freeSlots: [Int]
    private var isRead: [Bool]
    private var failure: ImageToolError?

    private struct Piece {
        let start: UInt64
        let byteCount: Int
        /// nil: zeros.
        let slot: Int?
    }

    /// - Parameter stream: is left open.
    init(from source: Disk, to stream: FileDescriptor, of target: StreamTarget) throws(ImageToolError) {
        self.source = source
        self.target = target
        self.stream = stream
        map = try source.map()
        buffers = PageBuffer(byteCount: source.depth * Disk.largestRequestBytes)
        zeros = PageBuffer(byteCount: Disk.largestRequestBytes)
        zeros.zero()
        freeSlots = Array((0..<source.depth).reversed())
        isRead = Array(repeating: false, count: source.depth)
    }

    /// Blocks until the stream has taken all of it; a file or a disk has it durably then.
    func run(progress: (@Sendable (Double) -> Void)?) throws(ImageToolError) {
        do throws(ImageToolError) { try send(progress) } catch { failure = failure ?? error }
        // No buffer may be freed while a request is under way.
        while freeSlots.count < source.depth {
            if let slot = pieces.first?.slot { waitForRead(slot) }
            let piece = pieces.removeFirst()
            if let slot = piece.slot { freeSlots.append(slot) }
        }
        if let failure { throw failure }
        // A pipe cannot be synced, and says so.
        if fdatasync(stream.rawValue) != 0, ![EINVAL, EROFS, ENOTSUP].contains(errno) {
            throw target.failure("making it durable", 0, Errno(rawValue: errno))
        }
        progress?(1)
    }

    private func send(_ progress: (@Sendable (Double) -> Void)?) throws(ImageToolError) {
        var position: UInt64 = 0
        while position < source.sizeBytes || !pieces.isEmpty {
            // As much is being read as there is room for.
            while position < source.sizeBytes, pieces.count < source.depth {
                let limit = min(position + UInt64(Disk.largestRequestBytes), source.sizeBytes)
                let extent = try map.extent(at: position, limit: limit)
                start(extent)
                position = extent.end
            }
            try writeFirst()
            progress?(Double(pieces.first?.start ?? position) / Double(max(source.sizeBytes, 1)))
        }
    }

    private func start(_ extent: DiskExtent) {
        guard extent.kind == .data, let slot = freeSlots.popLast() else {
            precondition(extent.kind != .data, "no more pieces than slots")
            pieces.append(Piece(start: extent.start, byteCount: Int(extent.length), slot: nil))
            return
        }
        isRead[slot] = false
        pieces.append(Piece(start: extent.start, byteCount: Int(extent.length), slot: slot))
        source.start(
            slot, BlockRequest(.read, deviceOffset: extent.start, byteCount: extent.length, buffer: address(slot)))
    }

    private func writeFirst() throws(ImageToolError) {
        let piece = pieces[0]
        if let slot = piece.slot { waitForRead(slot) }
        if let failure { throw failure }
        let bytes = UnsafeRawBufferPointer(start: piece.slot.map(address) ?? zeros.address, count: piece.byteCount)
        do throws(Errno) { try stream.writeWaiting(bytes) } catch {
            throw target.failure("write", piece.start, error)
        }
        pieces.removeFirst()
        if let slot = piece.slot { freeSlots.append(slot) }
    }

    private func waitForRead(_ slot: Int) {
        source.turn(waits: false)
        reap()
        while !isRead[slot] {
            source.turn(waits: true)
            reap()
        }
    }

    private func reap() {
        while let (slot, result) = source.nextFinished() {
            isRead[slot] = true
            guard result < 0, failure == nil else { continue }
            let start = pieces.first { $0.slot == slot }?.start ?? 0
            failure = .request(path: source.path, "read", deviceOffset: start, Errno(rawValue: -result))
        }
    }

    private func address(_ slot: Int) -> UnsafeMutableRawPointer { buffers.address + slot * Disk.largestRequestBytes }
}
