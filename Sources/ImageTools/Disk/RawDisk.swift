import BlockStorage
import Glibc
import IOURing
import QEDChain
import QEDEngine
import QEDFormat
import SystemPackage

/// A raw file, or a block device, behind the same slots as an image: requests go in, results come out.
///
/// Belongs to the thread that made it. A length that is not a whole number of sectors counts as the next one; the bytes
/// that are missing read as zeros.
final class RawDisk: @unchecked Sendable {
    // SAFETY: used by the thread that made it. A slot's buffer is the caller's until the slot has finished.
    let file: ImageFile
    let sizeBytes: UInt64
    let isReadOnly: Bool
    private let loop: RingLoop
    private let storage: FileStorage
    private var slots: [Slot]
    private var finished: [(slot: Int, result: Int32)] = []

    private struct Slot {
        var request = BlockRequest(.flush)
        var doneBytes: UInt64 = 0
        /// The file system cannot punch or zero: zeros are written.
        var writesZeros = false
        /// How often in a row the kernel has done nothing.
        var attemptsInVain = 0
    }

    private static let zeroBytes = 1 << 20
    private static let attemptLimit = 64
    private static let immediateAttempts = 8
    private static let pauseMicroseconds: UInt32 = 30_000
    private let zeros = PageBuffer(byteCount: RawDisk.zeroBytes)

    init(
        path: String, isReadOnly: Bool, sharing: Bool, caching: ImageFile.Caching = .buffered, depth: Int,
        policy: BackingPolicy? = nil
    ) throws(ImageToolError) {
        file = try ImageFile.openedForTool(
            path, isReadOnly ? .readOnly : .readWrite, sharing: sharing, allowBlockDevice: true, caching: caching,
            policy: policy)
        if file.sizeBytes % UInt64(file.alignment.offsetBytes) != 0 {
            do throws(ImageFileError) { try file.useBufferedIO() } catch { throw .read(.file(error)) }
        }
        do throws(Errno) { loop = try RingLoop(entries: 256, completionEntries: 1024) } catch { throw .noRing(error) }
        let sector = QEDLimits.sectorSizeBytes
        sizeBytes = (file.sizeBytes + sector - 1) / sector * sector
        storage = file.storage(on: loop.ring)
        slots = Array(repeating: Slot(), count: depth)
        self.isReadOnly = isReadOnly
        zeros.zero()
    }

    deinit { loop.close() }

    func start(_ slot: Int, _ request: BlockRequest) {
        slots[slot] = Slot(request: request)
        if request.operation != .flush
            && (request.deviceOffset > sizeBytes || request.byteCount > sizeBytes - request.deviceOffset)
        {
            finished.append((slot, -Errno.invalidArgument.rawValue))
        } else if request.operation != .read && isReadOnly {
            finished.append((slot, request.operation == .flush ? 0 : -Errno.notPermitted.rawValue))
        } else {
            submit(slot)
        }
    }

    func nextFinished() -> (slot: Int, result: Int32)? { finished.isEmpty ? nil : finished.removeFirst() }

    func turn(waits: Bool) {
        loop.turn(waits: waits && finished.isEmpty) { token, result in completed(token.slot, result) }
    }

    /// Whoever opens the file next need not wait for this disk's end.
    /// - Throws: the errno of the sync that makes everything durable.
    func close() throws(StorageError) {
        defer { file.releaseLock() }
        guard !isReadOnly else { return }
        let storage = self.storage
        try loop.run { () async throws(StorageError) in try await storage.sync() }
    }

    /// Gives the file another length.
    func setLength(_ sizeBytes: UInt64) throws(StorageError) {
        let storage = self.storage
        try loop.run { () async throws(StorageError) in try await storage.setLength(sizeBytes) }
    }

    private func submit(_ slot: Int) {
        let request = slots[slot].request
        let position = request.deviceOffset + slots[slot].doneBytes
        let rest = request.byteCount - slots[slot].doneBytes
        let piece = UInt32(min(rest, 1 << 30))
        let token = CompletionToken(kind: 2, slot: slot)
        switch (request.operation, request.buffer) {
        case (.flush, _): storage.submit(.sync, token: token)
        case (.read, let buffer?):
            storage.submit(
                .read(buffer + Int(slots[slot].doneBytes), byteCount: piece, fileOffset: position), token: token)
        case (.write, let buffer?):
            storage.submit(
                .write(buffer + Int(slots[slot].doneBytes), byteCount: piece, fileOffset: position), token: token)
        case (.writeZeroes, _) where slots[slot].writesZeros:
            storage.submit(
                .write(zeros.address, byteCount: min(piece, UInt32(zeros.byteCount)), fileOffset: position),
                token: token)
        case (.writeZeroes, _) where request.keepsSpace:
            storage.submit(.zeroRange(fileOffset: position, byteCount: rest), token: token)
        case (.writeZeroes, _), (.discard, _):
            storage.submit(.punchHole(fileOffset: position, byteCount: rest), token: token)
        case (.read, nil), (.write, nil): preconditionFailure("data moves, and there is no buffer")
        }
    }

    private func completed(_ slot: Int, _ result: Int32) {
        let request = slots[slot].request
        if result == -Errno.interrupted.rawValue || result == -Errno.resourceTemporarilyUnavailable.rawValue {
            slots[slot].attemptsInVain += 1
            guard slots[slot].attemptsInVain < RawDisk.attemptLimit else {
                return finished.append((slot, -Errno.ioError.rawValue))
            }
            // Memory may be short: nothing is gained by asking again at once.
            if slots[slot].attemptsInVain > RawDisk.immediateAttempts { usleep(RawDisk.pauseMicroseconds) }
            return submit(slot)
        }
        slots[slot].attemptsInVain = 0
        let moves = request.operation == .read || request.operation == .write || slots[slot].writesZeros
        if result < 0 {
            let cannot = result == -Errno.notSupported.rawValue || result == -Errno.noFunction.rawValue
            if cannot && request.operation == .writeZeroes && !slots[slot].writesZeros {
                slots[slot].writesZeros = true
                return submit(slot)
            }
            finished.append((slot, cannot && request.operation == .discard ? 0 : result))
            return
        }
        guard moves else { return finished.append((slot, 0)) }
        if result == 0 {
            guard request.operation == .read, let buffer = request.buffer else {
                return finished.append((slot, -Errno.ioError.rawValue))
            }
            let done = Int(slots[slot].doneBytes)
            (buffer + done).initializeMemory(as: UInt8.self, repeating: 0, count: Int(request.byteCount) - done)
            return finished.append((slot, 0))
        }
        slots[slot].doneBytes += UInt64(result)
        if slots[slot].doneBytes < request.byteCount { submit(slot) } else { finished.append((slot, 0)) }
    }
}
